"""Loading: a bad default ends the server, any other bad bundle changes nothing; swaps lose no request and no name."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.preprocess import fit
from service.errors import Busy, Conflict, NotFound, NotKept
from service.metrics import Metrics
from service.repository.registry import NoBundle, Registry
from service.settings import Settings
from tests.service.registries import Engine, Wrong, load, settings_of, settled, within
from tests.service.variants import variant


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_the_first_is_the_default_and_names_find_the_rest(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    registry = load(Settings(bundles=(tiny_bundle, make_bundle("other")), state=tmp_path))
    assert registry.loaded
    assert registry.get(None).name == "tiny"
    other = registry.get("other")
    assert registry.get(other.bundle.ref) is other
    for ref in ("others", "other@000000000000", "", "tiny@"):
        with pytest.raises(NotFound):
            registry.get(ref)


def test_a_default_that_fails_its_golden_image_fails_the_server(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match="golden image"):
        load(Settings(bundles=(tiny_bundle,), state=tmp_path), lambda bundle: Wrong())
    with pytest.raises(Busy, match="loading"):
        Registry(Settings(bundles=(tiny_bundle,), state=tmp_path), Metrics()).get(None)


def test_that_names_cannot_be_kept_is_known_before_a_model_is(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = Registry(Settings(bundles=(tiny_bundle,), state=tmp_path / "file"), Metrics())
    assert registry.names_kept
    with pytest.raises(NotKept):
        asyncio.run(registry._changes.probe())
    assert not registry.served
    assert not registry.names_kept


def test_a_second_bundle_that_is_bad_is_named_and_not_served(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bad = make_bundle("bad")
    (bad / "NOTICE").write_text("changed")
    registry = load(Settings(bundles=(tiny_bundle, bad, tmp_path / "absent", tiny_bundle), state=tmp_path / "state"))
    assert registry.loaded
    assert [s.name for s in registry.served] == ["tiny"]
    assert "NOTICE" in registry.failed["bad"]
    assert "no such" in registry.failed["absent"]
    assert "twice" in registry.failed["tiny"]
    assert str(tmp_path) not in " ".join(registry.failed.values())


@pytest.mark.parametrize("bundles", [(), (Path("absent"),)])
def test_nothing_to_serve_is_said(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match="train one"):
        load(Settings(bundles=bundles, state=tmp_path))


def test_ready_means_run_at_the_golden_and_the_declared_size(bundle: Bundle, tmp_path: Path) -> None:
    registry = load(settings_of(bundle, tmp_path))
    golden = fit(bundle.golden.image, bundle.manifest.input).pixels.shape[:2]
    assert set(registry.served[0].engine.shapes) == {golden, bundle.manifest.input.size}


def test_the_same_bundle_again_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    opened: list[Engine] = []

    def opens(bundle: Bundle) -> Engine:
        opened.append(Engine())
        return opened[-1]

    async def work(registry: Registry) -> None:
        before = registry.get(None)
        added = await registry.add(bundle.path)
        assert (added.served, added.unchanged, added.replaced) == (before, True, None)
        assert len(opened) == 1

    within(settings_of(bundle, tmp_path), work, opens)


def test_loads_take_turns_and_the_last_one_serves(bundle: Bundle, tmp_path: Path) -> None:
    inside = most = 0

    def opens(of: Bundle) -> Engine:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        engine = Engine()
        inside -= 1
        return engine

    async def work(registry: Registry) -> None:
        newer = [variant(bundle, tmp_path / str(i), notice=str(i)) for i in range(4)]
        await asyncio.gather(*(registry.add(one.path) for one in newer))
        await settled(registry)
        assert [served.bundle.ref for served in registry.served] == [newer[-1].ref]
        assert most == 1

    within(settings_of(bundle, tmp_path), work, opens)


def test_a_model_beyond_the_memory_is_refused_with_the_numbers(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    async def work(registry: Registry) -> None:
        with pytest.raises(Conflict) as refused:
            await registry.add(make_bundle("other"))
        for part in ("16 MB", "24 MB", bundle.ref, "Unload", "TESSERA_MAX_MODEL_BYTES"):
            assert part in str(refused.value)
        assert [served.name for served in registry.served] == ["tiny"]

    within(settings_of(bundle, tmp_path, max_model_bytes=24 * 2**20), work, lambda bundle: Engine())


def test_what_still_leaves_counts_as_held(bundle: Bundle, tmp_path: Path) -> None:
    newer = [variant(bundle, tmp_path / str(i), notice=str(i)) for i in range(2)]

    async def work(registry: Registry) -> None:
        with registry.use(None):
            await registry.add(newer[0].path)
            with pytest.raises(Conflict, match=bundle.ref):
                await registry.add(newer[1].path)
        await settled(registry)
        assert (await registry.add(newer[1].path)).replaced == newer[0].ref

    within(settings_of(bundle, tmp_path, max_model_bytes=40 * 2**20), work, lambda bundle: Engine())


def test_the_default_moves_on_when_it_is_unloaded_and_the_only_one_stays(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    async def work(registry: Registry) -> None:
        with pytest.raises(Conflict, match="only model"):
            await registry.remove("tiny")
        await registry.add(make_bundle("other"))
        assert registry.get(None).name == "tiny"
        with pytest.raises(NotFound):
            await registry.remove("third")
        await registry.remove("tiny")
        assert registry.get(None).name == "other"
        await settled(registry)
        assert len(Engine.open) == 1
        await registry.add(bundle.path, default=True)
        assert [served.name for served in registry.served] == ["tiny", "other"]

    Engine.open.clear()
    within(settings_of(bundle, tmp_path), work, lambda bundle: Engine())


def test_drift_and_strangers_are_shown_once_there_are_enough_images(bundle: Bundle, tmp_path: Path) -> None:
    metrics = Metrics()

    async def whole() -> None:
        registry = Registry(settings_of(bundle, tmp_path), metrics, lambda bundle: Engine())
        await registry.load()
        for images, shown in ((49, False), (1, True)):
            for _ in range(images):
                registry.served[0].drift.add(np.array([5, 0, 0, 0, 0]))
                registry.served[0].unfamiliar.add(False)
            registry.show()
            assert ('tessera_unfamiliar_share{model="tiny"} 1.0' in metrics.text().decode()) is shown
            assert ('tessera_cluster_drift{model="tiny"} 0.' in metrics.text().decode()) is shown
        await registry.close()

    asyncio.run(whole())
