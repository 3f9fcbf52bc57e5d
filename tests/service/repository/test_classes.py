"""Classes that people teach: they survive, never lose each other's changes, follow a swap, and keep to one encoder."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.class_file import ClassFile
from models.inference import Prediction
from service.errors import BadOption, Conflict, NotFound, NotKept
from service.repository import classes as module
from service.repository.class_store import ClassStore
from service.repository.classes import ClassBody, Classes
from service.repository.cluster_matching import Match, Pair
from service.repository.registry import Registry
from tests.service.registries import Engine, load, settings_of, within
from tests.service.variants import variant

RED = np.array([1, -1, -1], np.float32) / np.float32(3**0.5)
BLUE = np.array([-1, -1, 1], np.float32) / np.float32(3**0.5)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


class Own(Engine):
    """The tiny network of a bundle, whatever order its clusters have."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self._centroids = bundle.centroids

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        codes = super().__call__(pixels, code=True).code
        assert codes is not None
        return Prediction(np.einsum("kd,bdhw->bkhw", self._centroids, codes), codes if code else None)


_stores: list[ClassStore] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _stores:
        _stores.pop().close()


def opened(bundle: Bundle, folder: Path) -> Classes:
    """As a server of its own on the folder sees them."""
    _stores.append(ClassStore(folder))
    classes = Classes(bundle, _stores[-1])
    asyncio.run(classes.refresh(5))
    return classes


def make(classes: Classes, name: str, **more: Any) -> int:
    return asyncio.run(classes.create(ClassBody(name=name, **more))).id


def teach(classes: Classes, id: int, code: Any = RED, **more: Any) -> int:
    encoder = more.pop("encoder", classes.state.encoder)
    return asyncio.run(classes.teach(id, code, (0.25, 0.5), encoder=encoder, **more))


def seen(classes: Classes) -> dict[int, tuple[str, str, tuple[int, ...], list[int]]]:
    return {c.id: (c.name, c.color, c.clusters, [e.n for e in c.examples]) for c in classes.state.classes}


def test_classes_survive_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    road, sky = make(classes, " road "), make(classes, "sky", color="#00AAFF", clusters=(2, 0))
    n = teach(classes, road, negative=True)
    again = opened(bundle, tmp_path)
    assert seen(again) == seen(classes)
    assert seen(again)[sky] == ("sky", "#00aaff", (0, 2), [])
    assert seen(again)[road][0::3] == ("road", [n])
    (example,) = again.state.by_id[road].examples
    assert np.array_equal(example.code, RED)
    assert (example.at, example.negative, example.encoder) == ((0.25, 0.5), True, classes.state.encoder)
    assert {f.name for f in tmp_path.iterdir()} == {"classes.sqlite3"}


def test_ids_are_the_smallest_free_and_numbers_of_examples_never_come_back(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    assert [make(classes, name) for name in "abc"] == [0, 1, 2]
    first = teach(classes, 1)
    removed = asyncio.run(classes.remove(1))
    assert make(classes, "d") == 1
    assert seen(classes)[1][3] == []
    assert teach(classes, 1) > first
    assert removed.classes[0].examples[0].n == first


def test_colors_are_far_from_each_other(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    for i in range(12):
        make(classes, f"class {i}")
    assert len({one.color for one in classes.state.classes}) == 12


def test_what_cannot_be_is_refused_and_changes_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = opened(bundle, tmp_path)
    road = make(classes, "road")
    make(classes, "sky")
    teach(classes, road)
    before = seen(classes)
    put = classes.put
    for error, words, work in (
        (Conflict, "class 0 is called 'road'", lambda: classes.create(ClassBody(name="road"))),
        (Conflict, "class 0 is called 'road'", lambda: put(1, ClassBody(name="road"))),
        (BadOption, "no cluster 5; tiny@.* has 0 to 4", lambda: put(1, ClassBody(name="sky", clusters=(5,)))),
        (BadOption, "0 to 254", lambda: put(255, ClassBody(name="x"))),
        (NotFound, "no class 7: there are 0, 1", lambda: classes.remove(7)),
        (NotFound, "no example 99", lambda: classes.forget(road, 99)),
        (NotFound, "no class 9", lambda: classes.teach(9, RED, (0, 0), encoder=classes.state.encoder)),
    ):
        with pytest.raises(error, match=words):
            asyncio.run(work())  # type: ignore[arg-type]
    for limit, words in (("MAX_EXAMPLES", "delete some"), ("MAX_EXAMPLES_IN_ALL", "most"), ("MAX_NUMBERS", "most")):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 1)
            with pytest.raises(BadOption, match=words):
                teach(classes, road)
    monkeypatch.setattr(module, "MAX_CLASSES", 2)
    with pytest.raises(BadOption, match="2 classes, the most"):
        make(classes, "third")
    assert seen(classes) == seen(opened(bundle, tmp_path)) == before


def test_two_servers_on_one_folder_lose_nothing(bundle: Bundle, tmp_path: Path) -> None:
    one, other = opened(bundle, tmp_path), opened(bundle, tmp_path)
    assert [make(one, "a"), make(other, "b")] == [0, 1]
    teach(one, 1)  # it has not looked since
    teach(other, 0, BLUE)

    async def both() -> None:
        await asyncio.gather(
            *(c.create(ClassBody(name=f"{i} of {c is one}")) for i in range(5) for c in (one, other)),
            *(c.teach(0, RED, (0, 0), encoder=c.state.encoder) for c in (one, other)),
        )
        await asyncio.gather(one.refresh(5), other.refresh(5))

    asyncio.run(both())
    assert seen(one) == seen(other) == seen(opened(bundle, tmp_path))
    assert sorted(seen(one)) == list(range(12))
    assert [len(examples) for *_, examples in seen(one).values()] == [3, 1, *[0] * 10]


def test_a_full_or_read_only_disk_changes_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = opened(bundle, tmp_path)
    make(classes, "road")
    before = seen(classes)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("service.repository.class_store._next", full)
        for work in (
            lambda: classes.create(ClassBody(name="sky")),
            lambda: classes.teach(0, RED, (0, 0), encoder=classes.state.encoder),
            lambda: classes.remove(0),
        ):
            with pytest.raises(NotKept, match=r"the classes are as they were.*disk is full"):
                asyncio.run(work())  # type: ignore[arg-type]
        assert not classes.persistent
        assert seen(classes) == before
    assert make(classes, "sky") == 1


def test_a_damaged_row_is_not_shown(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    make(classes, "road")
    make(classes, "sky")
    teach(classes, 0)
    before = seen(classes)
    with sqlite3.connect(tmp_path / "classes.sqlite3") as connection:
        connection.execute("UPDATE said SET value = replace(value, 'sky', 'sea')")
    alone = opened(bundle, tmp_path)
    assert seen(alone) == {0: before[0]}
    assert (tmp_path / "classes.sqlite3.damaged-1").exists()
    asyncio.run(classes.refresh(5))  # which showed it before, and knows it still
    asyncio.run(alone.refresh(5))
    assert seen(alone) == seen(classes) == before


def test_a_database_that_is_gone_gets_what_is_shown(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    make(classes, "road", clusters=(3,))
    n = teach(classes, 0)
    os.unlink(tmp_path / "classes.sqlite3")
    asyncio.run(classes.refresh(5))
    assert seen(opened(bundle, tmp_path)) == {0: ("road", classes.state.classes[0].color, (3,), [n])}
    assert teach(classes, 0) > n


def test_what_is_taken_back_is_forgotten_in_the_end(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.repository.class_store._MOST_REMOVED", 8)
    classes = opened(bundle, tmp_path)
    make(classes, "road")
    numbers = []
    for _ in range(20):
        numbers.append(teach(classes, 0))
        asyncio.run(classes.forget(0, numbers[-1]))
    assert numbers == sorted(set(numbers))
    with sqlite3.connect(tmp_path / "classes.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM said").fetchone()[0] <= 2 + 8


def test_examples_hold_for_their_encoder_alone(bundle: Bundle, tmp_path: Path) -> None:
    other = variant(bundle, tmp_path / "other", order=[1, 0, 2, 3, 4])
    classes = opened(bundle, tmp_path)
    make(classes, "road")
    teach(classes, 0)
    assert classes.state.taught
    there = opened(other, tmp_path)
    assert not there.state.taught
    assert there.state.classifier is None
    assert "examples of 'road' (1) were taken with another encoder" in there.state.warnings[0]
    teach(there, 0, BLUE)
    asyncio.run(classes.refresh(5))
    assert [len(c.state.used(c.state.classes[0])) for c in (classes, there)] == [1, 1]
    assert len(opened(bundle, tmp_path).state.classes[0].examples) == 2


def test_clusters_follow_a_swap_by_matching_and_the_rest_is_there_at_once(bundle: Bundle, tmp_path: Path) -> None:
    newer = variant(bundle, tmp_path / "newer", order=[1, 0, 2, 3, 4])

    async def work(registry: Registry) -> None:
        classes = registry.get(None).classes
        await classes.create(ClassBody(name="warm", clusters=(0, 3)))
        await classes.teach(0, RED, (0, 0), encoder=classes.state.encoder)
        await registry.add(newer.path)
        after = registry.get(None).classes
        (one,) = after.state.classes
        assert (one.name, one.clusters, after.state.used(one)) == ("warm", (1, 3), [])
        assert after.state.taught  # by its clusters
        await after.put(0, ClassBody(name="hot", clusters=(1,)))
        await registry.add(bundle.path)  # and back
        (one,) = registry.get(None).classes.state.classes
        assert (one.name, one.clusters) == ("hot", (0,))
        assert len(registry.get(None).classes.state.used(one)) == 1

    within(settings_of(bundle, tmp_path), work, Own)
    again = load(settings_of(newer, tmp_path), Own).get(None)  # a restart with the other one
    assert again.classes.state.classes[0].clusters == (1,)


def test_a_canary_of_the_same_name_shares_classes(bundle: Bundle, tmp_path: Path) -> None:
    newer = variant(bundle, tmp_path / "newer", order=[1, 0, 2, 3, 4])

    async def work(registry: Registry) -> None:
        default = registry.get(None).classes
        await default.create(ClassBody(name="warm", clusters=(0,)))
        canary = await registry.add_canary(newer.path)
        assert [(c.name, c.clusters) for c in canary.classes.state.classes] == [("warm", (1,))]
        await canary.classes.create(ClassBody(name="cold"))
        await default.put(0, ClassBody(name="hot", clusters=(0, 3)))
        await registry.refresh()
        assert [(c.name, c.clusters) for c in canary.classes.state.classes] == [("hot", (1, 3)), ("cold", ())]
        assert [c.name for c in default.state.classes] == ["hot", "cold"]
        await registry.promote()
        assert registry.get(None).classes.state.classes[0].clusters == (1, 3)

    within(settings_of(bundle, tmp_path), work, Own)


def test_what_followed_stays_unless_it_was_said_later_here(bundle: Bundle, tmp_path: Path) -> None:
    newer = variant(bundle, tmp_path / "newer", order=[1, 0, 2, 3, 4])
    old, new = opened(bundle, tmp_path), opened(newer, tmp_path)
    make(old, "warm", clusters=(0,))
    asyncio.run(new.refresh(5))
    asyncio.run(new.put(0, ClassBody(name="warm", clusters=(4,))))
    pairs = {i: Pair(i, j, 1.0) for i, j in enumerate([1, 0, 2, 3, 4])}
    asyncio.run(new.follow(old.past, Match("centroids", pairs)))
    assert new.state.classes[0].clusters == (4,)


def test_what_is_exported_is_imported_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path / "a")
    make(classes, "road", color="#112233", clusters=(1,))
    make(classes, "sky")
    teach(classes, 0)
    teach(classes, 0, BLUE, negative=True)
    file = ClassFile.parse(classes.state.file().to_bytes())
    there = opened(bundle, tmp_path / "b")
    make(there, "dog")
    make(there, "sky", color="#445566")
    done = asyncio.run(there.load(file))
    assert [one.name for one in there.state.classes] == ["dog", "sky", "road"]  # its id was taken
    assert {id: len(numbers) for id, numbers in done.classes.items()} == {2: 2, 1: 0}
    assert there.state.by_id[1].color == classes.state.by_id[1].color
    here, imported = classes.state.by_id[0], there.state.by_id[2]
    assert imported[2:4] == ("#112233", (1,))
    assert all(
        np.array_equal(a.code, b.code) and a[2:] == b[2:] for a, b in zip(here.examples, imported.examples, strict=True)
    )
    again = asyncio.run(there.load(file))
    assert all(not numbers for numbers in again.classes.values())  # nothing is doubled
    asyncio.run(there.load(file, replace=True))
    assert [(c.id, c.name) for c in there.state.classes] == [(0, "road"), (1, "sky")]
    asyncio.run(there.remove(0))
    asyncio.run(there.load(ClassFile.model_construct(**{**dict(file), "classes": ()}), replace=True))
    assert not there.state.classes


def test_what_is_removed_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    classes = opened(bundle, tmp_path)
    make(classes, "road", clusters=(1,))
    n, m = teach(classes, 0), teach(classes, 0, BLUE, encoder="f" * 64)
    before = seen(classes)[0][:3]
    asyncio.run(classes.load(asyncio.run(classes.forget(0, n))))
    asyncio.run(classes.load(ClassFile.parse(asyncio.run(classes.remove(0)).to_bytes())))
    assert seen(classes)[0][:3] == before
    assert n not in seen(classes)[0][3]
    assert m not in seen(classes)[0][3]
    assert sorted(e.encoder == classes.state.encoder for e in classes.state.classes[0].examples) == [False, True]


def test_a_file_of_another_encoder_brings_words_and_its_examples_aside(bundle: Bundle, tmp_path: Path) -> None:
    other = variant(bundle, tmp_path / "other", order=[1, 0, 2, 3, 4])
    classes = opened(other, tmp_path / "a")
    make(classes, "road", clusters=(1,))
    teach(classes, 0)
    file = classes.state.file()
    there = opened(bundle, tmp_path / "b")
    done = asyncio.run(there.load(file))
    assert "another encoder" in done.warnings[0]
    assert seen(there)[0][2] == (1,)
    assert there.state.used(there.state.classes[0]) == []
    back = opened(other, tmp_path / "b")
    assert len(back.state.used(back.state.classes[0])) == 1
    odd = file.model_copy(update={"classes": (file.classes[0].model_copy(update={"clusters": (1, 77)}),)})
    done = asyncio.run(there.load(odd))
    assert "does not have" in done.warnings[0]
    same = ClassFile.model_construct(**{**dict(odd), "encoder": there.state.encoder})
    with pytest.raises(BadOption, match="no cluster 77"):
        asyncio.run(there.load(same))
