"""Counts that workers share: totals, names, what a dead one leaves, and that of two never both take the last place."""

import threading
from pathlib import Path

import pytest

from service.fleet import page
from service.fleet.page import Page


def pages(folder: Path, count: int = 2) -> list[Page]:
    names = [str(number + 1) for number in range(count)]
    page.create(folder, names)
    return [Page(folder, names, name) for name in names]


def test_a_total_is_of_all_and_ends_with_its_worker(tmp_path: Path) -> None:
    one, two, three = (each.count("images") for each in pages(tmp_path, 3))
    one.add(3)
    two.add(4.5)
    assert (one.own, one.total, two.total, three.total) == (3, 7.5, 7.5, 7.5)
    assert (one.highest, three.highest) == (4.5, 4.5)
    file = tmp_path / "2.page"
    with file.open("r+b") as opened:  # as the parent does when a worker has died
        opened.write(bytes(file.stat().st_size))
    assert one.total == three.total == 3
    again = Page(tmp_path, ["1", "2", "3"], "1").count("images")
    assert (again.total, three.total) == (0, 0)


def test_a_place_is_taken_once(tmp_path: Path) -> None:
    one, two = (each.count("images") for each in pages(tmp_path))
    assert one.reserve(1, 2)
    assert two.reserve(1, 2)
    assert not one.reserve(1, 2)
    assert not two.reserve(1, 2)
    assert (one.own, two.own) == (1, 1)
    assert one.reserve(-1, 0)  # fewer always fit
    assert two.reserve(5, 2, alone=6)  # what nothing else is beside
    assert one.own + two.own == 6


def test_whoever_asks_at_once_there_are_never_too_many(tmp_path: Path) -> None:
    counts = [each.count("images") for each in pages(tmp_path, 4)]
    most, seen = 3, []

    def ask(number: int) -> None:
        for _ in range(500):
            if counts[number].reserve(1, most):
                seen.append(sum(count._here[0] for count in counts))  # type: ignore[attr-defined]
                counts[number].add(-1)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen
    assert counts[0].total == 0


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_ROWS", 64)


@pytest.mark.usefixtures("few_rows")
def test_names_count_over_all_and_make_room_for_others(tmp_path: Path) -> None:
    one, two = (each.tally("connections") for each in pages(tmp_path))
    one.add("a", 2)
    two.add("a", 1)
    two.add("b", 1)
    assert [tally.total(name) for tally in (one, two) for name in "abc"] == [3, 1, 0, 3, 1, 0]
    assert one.reserve("b", 2)
    assert not two.reserve("b", 2)
    for number in range(3 * page._ROWS):  # more names than there are rows, one after the other
        name = f"client {number}"
        one.add(name, 1)
        assert two.total(name) == 1
        one.add(name, -1)
        assert two.total(name) == 0
    assert (one.total("a"), two.total("a"), two.total("b")) == (3, 3, 2)


@pytest.mark.usefixtures("few_rows")
def test_names_beyond_the_rows_still_count_for_their_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_NEAR", 1)
    one, two = (each.tally("images") for each in pages(tmp_path))
    names = [f"key {number}" for number in range(2 * page._ROWS)]
    for name in names:
        one.add(name, 1)
    assert all(one.total(name) == 1 for name in names)
    assert 0.3 < sum(two.total(name) for name in names) / len(names) < 0.6
    for name in names:
        one.add(name, -1)
    assert not any(two.total(name) for name in names)


@pytest.mark.usefixtures("few_rows")
def test_marks_are_the_same_everywhere_and_bounded(tmp_path: Path) -> None:
    one, two = (each.marks("wrong_keys") for each in pages(tmp_path))
    for number in range(100):
        (one, two)[number % 2].change(b"here", lambda before: before + 1)
    assert (one.get(b"here"), two.get(b"here"), one.get(b"there")) == (100, 100, 0)
    for number in range(2 * page._ROWS):
        one.change(b"%d" % number, lambda before: before + 1)
    assert two.get(b"%d" % number) == 1
    assert two.get(b"here") == 100  # of those that lie near each other the smallest goes
