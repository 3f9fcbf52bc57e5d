"""What one worker is asked to load, all load or none: with every way in which one of them may fail."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import BadModel, Conflict
from service.fleet.unix_fleet import UnixFleet
from service.repository import shared_models
from service.repository.registry import Added
from service.repository.shared_models import SharedModels
from tests.service.fleet.pair import fleets


class Models:
    """A registry as far as SharedModels sees one: a bundle's ref is its folder's name."""

    def __init__(self, *refs: str) -> None:
        self.served = list(refs)
        self.settings = refs
        self.fails: Exception | None = None
        self.lies: str | None = None  # which other bundle is in every folder
        self._one_load = asyncio.Lock()

    async def load(self, models: list[tuple[Path, str]] | None = None) -> None:
        self.served = list(self.settings) if models is None else [ref for _, ref in models]

    async def add(
        self, folder: Path, *, default: bool = False, agreed: Callable[[Any], Awaitable[None]] | None = None
    ) -> Added:
        async with self._one_load:
            if self.fails is not None:
                raise self.fails
            ref = self.lies or folder.name
            unchanged = ref in self.served
            one: Any = SimpleNamespace(bundle=SimpleNamespace(ref=ref))
            if not unchanged:
                if agreed is not None:
                    await agreed(one)
                self.served.append(ref)
            if default:
                self.served.remove(ref)
                self.served.insert(0, ref)
            return Added(one, unchanged=unchanged)

    async def remove(self, ref: str) -> Any:
        self.served.remove(ref)
        return SimpleNamespace(bundle=SimpleNamespace(ref=ref))

    def listing(self) -> list[list[str]]:
        return [[f"/bundles/{ref}", ref] for ref in self.served]

    async def keep_to(self, refs: list[str]) -> None:
        async with self._one_load:
            self.served = sorted((ref for ref in self.served if ref in refs), key=refs.index)


def play(
    folder: Path,
    scenario: Callable[[list[Models], list[SharedModels], list[UnixFleet]], Awaitable[None]],
    count: int = 3,
) -> None:
    async def whole() -> None:
        members = fleets(folder, count)
        models = [Models("a", "b") for _ in members]
        shared = [SharedModels(one, fleet) for one, fleet in zip(models, members, strict=True)]  # type: ignore[arg-type]
        for fleet in members:
            await fleet.start()
        async with asyncio.timeout(15):
            await scenario(models, shared, members)
        for fleet in members:
            await fleet.close()

    asyncio.run(whole())


def test_all_load_and_unload_and_a_later_one_finds_the_same(tmp_path: Path) -> None:
    async def scenario(models: list[Models], shared: list[SharedModels], members: list[UnixFleet]) -> None:
        added = await shared[1].load(Path("/bundles/c"), default=True)
        assert not added.unchanged
        assert [one.served for one in models] == [["c", "a", "b"]] * 3
        await shared[2].unload("a")
        assert [one.served for one in models] == [["c", "b"]] * 3
        assert (await shared[0].load(Path("/bundles/b"), default=True)).unchanged
        assert [one.served for one in models] == [["b", "c"]] * 3
        models[0].served = []
        await shared[0].start()
        assert models[0].served == ["b", "c"]

    play(tmp_path, scenario)


@pytest.mark.parametrize("asked", [0, 2])
def test_where_one_cannot_none_does(tmp_path: Path, asked: int) -> None:
    async def scenario(models: list[Models], shared: list[SharedModels], members: list[UnixFleet]) -> None:
        models[1].fails = BadModel("its memory does not do")
        with pytest.raises(Conflict, match="worker 2: its memory does not do"):
            await shared[asked].load(Path("/bundles/c"))
        models[1].fails, models[1].lies = None, "d"
        with pytest.raises(Conflict, match="worker 2: d lies there, and not c"):
            await shared[asked].load(Path("/bundles/c"))
        await members[1].close()
        with pytest.raises(Conflict, match="worker 2: it cannot be reached"):
            await shared[asked].load(Path("/bundles/c"))
        assert [one.served for one in models] == [["a", "b"]] * 3
        assert members[0].kept("models") is None
        await members[1].start()
        models[1].lies = None
        await shared[asked].load(Path("/bundles/c"))
        assert [one.served for one in models] == [["a", "b", "c"]] * 3

    play(tmp_path, scenario)


def test_a_bad_bundle_is_refused_by_who_is_asked(tmp_path: Path) -> None:
    async def scenario(models: list[Models], shared: list[SharedModels], members: list[UnixFleet]) -> None:
        models[0].fails = BadModel("it is no bundle")
        with pytest.raises(BadModel, match="it is no bundle"):
            await shared[0].load(Path("/bundles/c"))
        assert [one.served for one in models] == [["a", "b"]] * 3

    play(tmp_path, scenario)


def test_two_loads_at_once_follow_each_other(tmp_path: Path) -> None:
    async def scenario(models: list[Models], shared: list[SharedModels], members: list[UnixFleet]) -> None:
        await asyncio.gather(*(one.load(Path(f"/bundles/{name}")) for one, name in zip(shared, "cde", strict=True)))
        assert models[0].served == models[1].served == models[2].served
        assert sorted(models[0].served) == list("abcde")

    play(tmp_path, scenario)


@pytest.mark.parametrize("written", [True, False])
def test_who_waits_for_one_that_died_looks_at_what_is_written(
    tmp_path: Path, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_models, "_LOOK_S", 0.02)

    async def scenario(models: list[Models], shared: list[SharedModels], members: list[UnixFleet]) -> None:
        async with members[0].one_at_a_time("models"):
            (reply,) = await members[0].ask("prepare_model", {"folder": "/bundles/c", "ref": "c"})
            assert reply.error == ""
            await asyncio.sleep(0.1)
            assert models[1].served == ["a", "b"]  # it waits
            if written:
                members[0].keep("models", [["/bundles/a", "a"], ["/bundles/c", "c"]])
        await asyncio.sleep(0.2)
        assert models[1].served == (["a", "b", "c"] if written else ["a", "b"])
        await shared[1].load(Path("/bundles/d"))
        assert "d" in models[0].served

    play(tmp_path, scenario, 2)
