"""The table of the methods, of which not every row is measured every time."""

from benchmarks.compare import MARKS, PAGE, merged, rows


def test_rows_that_were_not_measured_keep_their_lines_and_the_order_is_the_tables() -> None:
    before = "Then.\n\n| | mIoU |\n|---|---|\n| SmooSeg | .2 |\n| STEGO | .1 |\n"
    after = "Now.\n\n| | mIoU |\n|---|---|\n| PiCIE | .3 |\n| STEGO | .9 |"
    lines = merged(before, after).splitlines()
    assert lines == ["Now.", "", "| | mIoU |", "|---|---|", "| STEGO | .9 |", "| SmooSeg | .2 |", "| PiCIE | .3 |"]


def test_the_page_has_a_line_for_every_row_in_their_order() -> None:
    table = PAGE.read_text(encoding="utf-8").split(MARKS[0])[1].split(MARKS[1])[0]
    lines = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert [line.split("|")[1].strip() for line in lines] == [row.title for row in rows().values()]
    assert all("±" in line or "| not measured yet |" in line for line in lines)
    assert {line.count("|") for line in lines} == {8}
