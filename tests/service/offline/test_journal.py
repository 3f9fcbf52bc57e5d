"""What is remembered of a run that ended, however it ended."""

import os
from pathlib import Path

import pytest

from models.errors import UsageError
from service.offline import journal
from service.offline.journal import Journal, Order
from service.offline.outputs import NAME, NOTES, Outputs
from service.offline.sources import Finder, Item

ORDER = Order("tiny@123456789abc", "123456789abcdef", ("png",), {"crf": "fast"})


def image(folder: Path, name: str = "a.jpg") -> Item:
    (folder / name).write_bytes(b"image")
    finder = Finder()
    finder.path(folder / name)
    return finder.found().items[0]


def test_what_is_done_stays_done_until_the_file_or_its_answer_changes(tmp_path: Path) -> None:
    item = image(tmp_path)
    begun = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    assert not begun.is_done(item, ["a.png"])
    begun.note(item, "a")
    assert not begun.is_done(item, ["a.png"])  # no answer is there
    (tmp_path / "a.png").touch()
    begun.close()
    again = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    assert again.is_done(item, ["a.png"])
    assert again.records[item.source].stem == "a"
    os.utime(tmp_path / "a.jpg", ns=(0, 0))
    finder = Finder()
    finder.path(tmp_path / "a.jpg")
    assert not again.is_done(finder.found().items[0], ["a.png"])
    again.close()


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    item = image(tmp_path)
    begun = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    begun.note(item, "a", "no image")
    begun.close()
    again = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    assert again.records[item.source].failed == "no image"
    assert not again.is_done(item, [])
    again.close()


def test_a_line_that_was_cut_does_not_count_and_is_not_gone_on_with(tmp_path: Path) -> None:
    first, second = image(tmp_path), image(tmp_path, "b.jpg")
    begun = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    begun.note(first, "a")
    begun.close()
    with (tmp_path / NOTES / NAME).open("ab") as file:
        file.write(b'{"source": "/half')
    again = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    again.note(second, "b")
    again.close()
    last = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    assert list(last.records) == [first.source, second.source]
    last.close()


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (ORDER._replace(digest="f", model="other@fffffffffff"), "by tiny@123456789abc, and this is other@"),
        (ORDER._replace(formats=("png", "json")), "are png, and this is png, json"),
        (ORDER._replace(options={}), "crf was fast, and is as by default"),
        (ORDER._replace(options={"crf": "fast", "k": 3}), "k was as by default, and is 3"),
    ],
)
def test_another_order_is_refused_and_begins_anew_where_that_is_said(tmp_path: Path, order: Order, said: str) -> None:
    item = image(tmp_path)
    begun = Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
    (tmp_path / "a.png").touch()
    begun.note(item, "a")
    begun.close()
    with pytest.raises(UsageError, match=said):
        Journal.begin(Outputs(tmp_path, order.formats), order)
    anew = Journal.begin(Outputs(tmp_path, order.formats), order, overwrite=True)
    assert anew.records == {}
    assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.jpg").exists()
    anew.close()


def test_a_journal_that_names_files_elsewhere_has_none_of_them_removed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.png"
    victim.touch()
    out = tmp_path / "out"
    out.mkdir()
    begun = Journal.begin(Outputs(out, ORDER.formats), ORDER)
    begun.note(image(tmp_path), "../victim")
    begun.close()
    Journal.begin(Outputs(out, ORDER.formats), ORDER, overwrite=True).close()
    assert victim.exists()


def test_a_damaged_journal_is_said_and_not_overwritten(tmp_path: Path) -> None:
    assert journal.known(Outputs(tmp_path, ["png"]), ["png"]) is None
    (tmp_path / NOTES).mkdir()
    for text in ("no journal\n", "", '{"journal": 99}\n'):
        (tmp_path / NOTES / NAME).write_text(text)
        with pytest.raises(UsageError, match="damaged"):
            Journal.begin(Outputs(tmp_path, ORDER.formats), ORDER)
