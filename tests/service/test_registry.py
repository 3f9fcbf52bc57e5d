"""Loading: a bad default ends the server, any other bad bundle changes nothing; swaps lose no request and no name."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest

from models import image
from models.bundle import Bundle, Encoded
from service import matching
from service.clusters import Change, Clusters
from service.errors import BadModel, Busy, Conflict, NotFound
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings
from tests.service.variants import variant
from tests.tiny import MeanColor, bands

T = TypeVar("T")
PIXELS = image.fit(bands(), image.InputSpec(size=(64, 64), resize="short_side", multiple=8, max_side_px=512)).pixels


class Wrong(MeanColor):
    """Computes something else than training did."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        scores = super().__call__(pixels, code=code).scores
        return Encoded(np.roll(scores, 1, axis=1))


class Engine(MeanColor):
    """Counts those that are open, and knows whether it was used after its end."""

    open: ClassVar[weakref.WeakSet[Engine]] = weakref.WeakSet()
    provider = "cpu"

    def __init__(self) -> None:
        self.closed = False
        Engine.open.add(self)

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        assert not self.closed
        return super().__call__(pixels, code=code)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        Engine.open.discard(self)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def load(settings: Settings, *encoder: Callable[[Any], Any]) -> Registry:
    async def whole() -> Registry:
        registry = Registry(settings, Metrics(), *encoder)
        await registry.load()
        await registry.close()
        return registry

    return asyncio.run(whole())


def within(
    settings: Settings, work: Callable[[Registry], Awaitable[T]], *encoder: Callable[[Any], Any], limit_s: float = 20
) -> T:
    """What `work` makes of a registry that has loaded its bundles."""

    async def whole() -> T:
        registry = Registry(settings, Metrics(), *encoder)
        await registry.load()
        assert registry.state == "ready"
        try:
            return await asyncio.wait_for(work(registry), limit_s)
        finally:
            await registry.close()

    return asyncio.run(whole())


async def settled(registry: Registry) -> None:
    """Until what was replaced is put away."""
    while registry.leaving:
        await asyncio.sleep(0.005)


def settings_of(bundle: Bundle, tmp_path: Path, **more: Any) -> Settings:
    return Settings(bundles=(bundle.path,), state=tmp_path / "state", threads=1, engine="onnxruntime", **more)


def test_the_first_is_the_default_and_names_find_the_rest(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    registry = load(Settings(bundles=(tiny_bundle, make_bundle("other")), state=tmp_path))
    assert registry.state == "ready"
    assert registry.get(None).name == "tiny"
    other = registry.get("other")
    assert registry.get(other.bundle.ref) is other
    for ref in ("others", "other@000000000000", "", "tiny@"):
        with pytest.raises(NotFound):
            registry.get(ref)


def test_a_default_that_fails_its_golden_image_fails_the_server(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = load(Settings(bundles=(tiny_bundle,), state=tmp_path), lambda bundle: Wrong())
    assert registry.state == "failed"
    assert "golden image" in caplog.text
    with pytest.raises(Busy):
        registry.get(None)


def test_a_second_bundle_that_is_bad_is_named_and_not_served(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bad = make_bundle("bad")
    (bad / "NOTICE").write_text("changed")
    registry = load(Settings(bundles=(tiny_bundle, bad, tmp_path / "absent", tiny_bundle), state=tmp_path / "state"))
    assert registry.state == "ready"
    assert [s.name for s in registry.served] == ["tiny"]
    assert "NOTICE" in registry.failed["bad"]
    assert "no such" in registry.failed["absent"]
    assert "twice" in registry.failed["tiny"]
    assert str(tmp_path) not in " ".join(registry.failed.values())


@pytest.mark.parametrize("bundles", [(), (Path("absent"),)])
def test_nothing_to_serve_is_said(bundles: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(Settings(bundles=bundles, state=tmp_path)).state == "failed"
    assert "train one" in caplog.text


def test_ready_means_run_at_the_golden_and_the_declared_size(bundle: Bundle, tmp_path: Path) -> None:
    registry = load(settings_of(bundle, tmp_path))
    golden = image.fit(bundle.golden.image, bundle.manifest.input).pixels.shape[:2]
    assert set(registry.served[0].shapes) == {golden, bundle.manifest.input.size}


def test_names_colors_and_merges_follow_a_swap_to_the_right_clusters(bundle: Bundle, tmp_path: Path) -> None:
    turned = variant(bundle, tmp_path / "turned", order=[3, 0, 4, 1, 2])

    async def work(registry: Registry) -> None:
        old = registry.get("tiny").clusters
        await old.patch(1, Change(name="grass", color="#00ff00"))
        await old.patch(2, Change(merged_into=1))
        await old.patch(3, Change(hidden=True))
        added = await registry.add(turned.path)
        assert (added.replaced, added.unchanged) == (bundle.ref, False)
        assert registry.get(None) is registry.get("tiny") is added.served
        look = added.served.clusters.appearance
        assert look.names == ("white", "red", "black", "grass", "blue")
        assert look.colors[3].tolist() == [0, 255, 0]
        assert look.becomes.tolist() == [0, 1, 2, 3, 3]
        assert look.hidden == {0}
        assert added.followed is not None
        assert {(pair.old, pair.new) for pair in added.followed.carried} == {(1, 3), (2, 4), (3, 0)}
        assert added.followed.lost == []

    within(settings_of(bundle, tmp_path), work)


def test_without_a_common_code_names_follow_what_both_networks_see(bundle: Bundle, tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    turned = variant(bundle, tmp_path / "turned", order=order)

    class Foreign(Engine):
        def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
            scores, codes = super().__call__(pixels, code=code)
            return Encoded(scores[:, order], None if codes is None else np.ones_like(codes))

    async def work(registry: Registry) -> None:
        await registry.get("tiny").clusters.patch(1, Change(name="grass"))
        added = await registry.add(turned.path)
        assert added.followed is not None
        assert added.followed.by == "overlap"
        assert added.served.clusters.appearance.names[3] == "grass"

    within(settings_of(bundle, tmp_path), work, lambda of: Engine() if of.digest == bundle.digest else Foreign())


def test_names_follow_at_a_restart_with_a_newer_bundle(bundle: Bundle, tmp_path: Path) -> None:
    settings = settings_of(bundle, tmp_path)
    asyncio.run(Clusters(bundle, settings.state / "clusters").patch(1, Change(name="grass")))
    turned = variant(bundle, tmp_path / "turned", order=[3, 0, 4, 1, 2])
    for _ in range(2):
        registry = load(settings_of(turned, tmp_path))
        assert registry.served[0].clusters.appearance.names[3] == "grass"
    assert load(settings).served[0].clusters.appearance.names[1] == "grass"


def test_a_change_that_comes_during_a_swap_is_not_lost(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = variant(bundle, tmp_path / "turned", order=[3, 0, 4, 1, 2])
    follow = Clusters.follow

    async def work(registry: Registry) -> None:
        old = registry.get("tiny").clusters
        await old.patch(1, Change(name="grass"))

        async def slow(self: Clusters, *given: Any) -> Any:
            followed = await follow(self, *given)
            if old.appearance.names[0] == "red":
                await old.patch(0, Change(name="brick"))
            return followed

        monkeypatch.setattr(Clusters, "follow", slow)
        look = (await registry.add(turned.path)).served.clusters.appearance
        assert look.names == ("white", "brick", "black", "grass", "blue")

    within(settings_of(bundle, tmp_path), work)


def test_names_that_cannot_follow_do_not_stop_a_load(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(matching, "match", broken)
    newer = variant(bundle, tmp_path / "newer")

    async def work(registry: Registry) -> None:
        await registry.get(None).clusters.patch(1, Change(name="grass"))
        added = await registry.add(newer.path)
        assert added.followed is None
        assert registry.get(None) is added.served

    within(settings_of(bundle, tmp_path), work)
    assert "could not follow" in caplog.text


def test_who_holds_the_old_one_finishes_on_it(bundle: Bundle, tmp_path: Path) -> None:
    newer = variant(bundle, tmp_path / "newer")

    async def work(registry: Registry) -> None:
        with registry.use(None) as old, registry.use("tiny"):
            added = await registry.add(newer.path)
            assert registry.get(None) is added.served
            assert registry.leaving == [old]
            await asyncio.sleep(0.05)
            await old.batcher.submit(PIXELS)
            assert not old.encoder.closed  # type: ignore[attr-defined]
        await settled(registry)
        assert old.encoder.closed  # type: ignore[attr-defined]
        with pytest.raises(NotFound):
            registry.get(bundle.ref)

    within(settings_of(bundle, tmp_path), work, lambda bundle: Engine())


class Fails(Engine):
    """Dies of its first image."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        raise RuntimeError("out of luck\nat line 7")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "NOTICE").write_text("x"), "sha256"),
        (lambda folder: (folder / "more.py").write_text("x"), "not listed"),
        (lambda folder: (folder / "manifest.json").unlink(), "missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "JSON"),
        ("wrong", "golden image"),
        ("fails", "out of luck"),
    ],
)
def test_a_bad_bundle_changes_nothing(bundle: Bundle, tmp_path: Path, spoil: Any, says: str) -> None:
    newer = variant(bundle, tmp_path / "newer")
    if callable(spoil):
        spoil(newer.path)

    def opened(of: Bundle) -> Any:
        if of.digest != bundle.digest and isinstance(spoil, str):
            return {"wrong": Wrong, "fails": Fails}[spoil]()
        return Engine()

    async def work(registry: Registry) -> None:
        before = registry.get(None)
        live = len(Engine.open)
        with pytest.raises(BadModel, match=says):
            await registry.add(newer.path)
        assert registry.served == [before]
        assert (registry.leaving, registry.loading, registry.state) == ([], None, "ready")
        assert says in registry.failed["newer"]
        assert "\n" not in registry.failed["newer"]
        assert len(Engine.open) == live
        await before.batcher.submit(PIXELS)

    within(settings_of(bundle, tmp_path), work, opened)


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


def test_drift_is_shown_once_there_are_enough_images(bundle: Bundle, tmp_path: Path) -> None:
    metrics = Metrics()

    async def whole() -> None:
        registry = Registry(settings_of(bundle, tmp_path), metrics, lambda bundle: Engine())
        await registry.load()
        for images, shown in ((49, False), (1, True)):
            for _ in range(images):
                registry.served[0].drift.add(np.array([5, 0, 0, 0, 0]))
            registry.show()
            assert ('tessera_cluster_drift{model="tiny"} 0.' in metrics.text().decode()) is shown
        await registry.close()

    asyncio.run(whole())


def test_ten_swaps_leave_one_network(bundle: Bundle, tmp_path: Path) -> None:
    pair = [variant(bundle, tmp_path / str(i), notice=str(i), order=[i, 1 - i, 2, 3, 4]) for i in range(2)]
    engines: list[weakref.ref[Engine]] = []

    class Turned(Engine):
        def __init__(self, of: Bundle) -> None:
            super().__init__()
            self.order = [of.manifest.clusters[i].name == "red" for i in range(2)].index(True)

        def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
            scores, codes = super().__call__(pixels, code=code)
            order = [self.order, 1 - self.order, 2, 3, 4]
            return Encoded(scores[:, order], codes)

    def opens(of: Bundle) -> Engine:
        engine = Turned(of)
        engines.append(weakref.ref(engine))
        return engine

    async def work(registry: Registry) -> None:
        await registry.get(None).clusters.patch(0, Change(name="brick"))
        for i in range(10):
            await registry.add(pair[(i + 1) % 2].path)
            await registry.get(None).batcher.submit(PIXELS)
        await settled(registry)
        assert registry.get(None).clusters.appearance.names[0] == "brick"

        def alive() -> int:
            gc.collect()
            return sum(engine() is not None for engine in engines)

        while alive() > 1:
            await asyncio.sleep(0.01)
        assert len(engines) == 11

    within(settings_of(pair[0], tmp_path), work, opens)


@pytest.mark.slow
def test_two_hundred_swaps_under_traffic_do_not_grow(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    pair = [variant(bundle, tmp_path / str(i), notice=str(i)) for i in range(2)]

    def rss_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    async def work(registry: Registry) -> None:
        answered = 0
        done = asyncio.Event()

        async def traffic() -> None:
            nonlocal answered
            while not done.is_set():
                with registry.use(None) as served:
                    await served.batcher.submit(PIXELS)
                answered += 1

        clients = [asyncio.create_task(traffic()) for _ in range(3)]
        for i in range(200):
            assert not (await registry.add(pair[(i + 1) % 2].path)).unchanged
            if i == 50:
                gc.collect()
                before = rss_mb()
        done.set()
        await asyncio.gather(*clients)
        await settled(registry)
        gc.collect()
        assert rss_mb() - before < 16
        assert answered > 200

    within(settings_of(pair[0], tmp_path), work, limit_s=300)
