"""The table of the methods, of which not every row is measured every time."""

from benchmarks.compare import merged


def test_rows_that_were_not_measured_keep_their_lines_and_the_order_is_the_tables() -> None:
    before = "Then.\n\n| | mIoU |\n|---|---|\n| SmooSeg | .2 |\n| STEGO | .1 |\n"
    after = "Now.\n\n| | mIoU |\n|---|---|\n| PiCIE | .3 |\n| STEGO | .9 |"
    lines = merged(before, after).splitlines()
    assert lines == ["Now.", "", "| | mIoU |", "|---|---|", "| STEGO | .9 |", "| SmooSeg | .2 |", "| PiCIE | .3 |"]
