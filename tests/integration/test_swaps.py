"""Hot swaps: what follows to the newer bundle, who finishes on the old one, and that nothing is left behind."""

import asyncio
import gc
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.inference import Prediction
from service.errors import BadModel, NotFound
from service.repository import cluster_matching
from service.repository.change_store import ChangeStore
from service.repository.cluster_changes import Change
from service.repository.cluster_names import Clusters
from service.repository.registry import Registry
from tests.service.registries import PIXELS, Engine, Wrong, load, settings_of, settled, within
from tests.service.variants import variant


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


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
        look = added.served.clusters.style
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
        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            scores, codes = super().__call__(pixels, code=code)
            return Prediction(scores[:, order], None if codes is None else np.ones_like(codes))

    async def work(registry: Registry) -> None:
        await registry.get("tiny").clusters.patch(1, Change(name="grass"))
        added = await registry.add(turned.path)
        assert added.followed is not None
        assert added.followed.by == "overlap"
        assert added.served.clusters.style.names[3] == "grass"

    within(settings_of(bundle, tmp_path), work, lambda of: Engine() if of.digest == bundle.digest else Foreign())


def test_names_follow_at_a_restart_with_a_newer_bundle(bundle: Bundle, tmp_path: Path) -> None:
    settings = settings_of(bundle, tmp_path)
    store = ChangeStore(settings.state)
    asyncio.run(Clusters(bundle, store).patch(1, Change(name="grass")))
    store.close()
    turned = variant(bundle, tmp_path / "turned", order=[3, 0, 4, 1, 2])
    for _ in range(2):
        registry = load(settings_of(turned, tmp_path))
        assert registry.served[0].clusters.style.names[3] == "grass"
    assert load(settings).served[0].clusters.style.names[1] == "grass"


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
            if old.style.names[0] == "red":
                await old.patch(0, Change(name="brick"))
            return followed

        monkeypatch.setattr(Clusters, "follow", slow)
        look = (await registry.add(turned.path)).served.clusters.style
        assert look.names == ("white", "brick", "black", "grass", "blue")

    within(settings_of(bundle, tmp_path), work)


def test_names_that_cannot_follow_do_not_stop_a_load(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(cluster_matching, "match", broken)
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
            await old.batcher.predict(PIXELS)
            assert not old.engine.closed  # type: ignore[attr-defined]
        await settled(registry)
        assert old.engine.closed  # type: ignore[attr-defined]
        with pytest.raises(NotFound):
            registry.get(bundle.ref)

    within(settings_of(bundle, tmp_path), work, lambda bundle: Engine())


class Fails(Engine):
    """Dies of its first image."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
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
        assert (registry.leaving, registry.loading) == ([], None)
        assert says in registry.failed["newer"]
        assert "\n" not in registry.failed["newer"]
        assert len(Engine.open) == live
        await before.batcher.predict(PIXELS)

    within(settings_of(bundle, tmp_path), work, opened)


def test_ten_swaps_leave_one_network(bundle: Bundle, tmp_path: Path) -> None:
    pair = [variant(bundle, tmp_path / str(i), notice=str(i), order=[i, 1 - i, 2, 3, 4]) for i in range(2)]
    engines: list[weakref.ref[Engine]] = []

    class Turned(Engine):
        def __init__(self, of: Bundle) -> None:
            super().__init__()
            self.order = [of.manifest.clusters[i].name == "red" for i in range(2)].index(True)

        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            scores, codes = super().__call__(pixels, code=code)
            order = [self.order, 1 - self.order, 2, 3, 4]
            return Prediction(scores[:, order], codes)

    def opens(of: Bundle) -> Engine:
        engine = Turned(of)
        engines.append(weakref.ref(engine))
        return engine

    async def work(registry: Registry) -> None:
        await registry.get(None).clusters.patch(0, Change(name="brick"))
        for i in range(10):
            await registry.add(pair[(i + 1) % 2].path)
            await registry.get(None).batcher.predict(PIXELS)
        await settled(registry)
        assert registry.get(None).clusters.style.names[0] == "brick"

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
                    await served.batcher.predict(PIXELS)
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
