"""The torture's quick parts at each `make test`, a tenth of all of it among the slow ones; and its own bookkeeping."""

import asyncio
from pathlib import Path

import pytest

from tests.torture.__main__ import order
from tests.torture.verdict import TESTS, Found, Place, Trial, judged, table

QUICK = ("10", "21")


def run(test: Trial, bundle: Path, folder: Path) -> None:
    folder.chmod(0o755)
    row = asyncio.run(judged(test, Place(folder, bundle, quick=True)))
    assert row.verdict == "passed", "\n".join(row.failed)
    assert row.tried > 0


@pytest.mark.parametrize("test", [t for t in TESTS if t.number in QUICK], ids=lambda test: test.number)
def test_quick(test: Trial, tiny_bundle: Path, tmp_path: Path) -> None:
    run(test, tiny_bundle, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "test", sorted((t for t in TESTS if t.number not in (*QUICK, "24")), key=order), ids=lambda test: test.number
)
def test_a_tenth(test: Trial, tiny_bundle: Path, tmp_path: Path) -> None:
    run(test, tiny_bundle, tmp_path)


def test_every_number_is_there_once() -> None:
    numbers = [test.number for test in TESTS]
    assert len(set(numbers)) == len(numbers)
    assert {number for number in numbers if number.isdigit()} == {str(i) for i in range(1, 26)}


async def _fails(place: Place, found: Found) -> None:
    found.must(True, "fine")
    found.must(False, "not | fine")


async def _breaks(place: Place, found: Found) -> None:
    raise RuntimeError("no server")


async def _absent(place: Place, found: Found) -> None:
    found.not_built("comes later")


async def _sleeps(place: Place, found: Found) -> None:
    await asyncio.sleep(60)


def test_what_does_not_hold_is_never_passed(tmp_path: Path) -> None:
    tests = [Trial(str(i), "title", 0.2, False, work) for i, work in enumerate((_fails, _breaks, _absent, _sleeps))]
    rows = [asyncio.run(judged(test, Place(tmp_path, tmp_path))) for test in tests]
    assert [row.verdict for row in rows] == ["FAILED", "FAILED", "not built", "FAILED"]
    assert (rows[0].tried, rows[0].failed) == (2, ["not | fine"])
    text = table(rows)
    assert "| 2 | title | 0 | 0 | not built: comes later | not built |" in text
    assert "RuntimeError: no server" in text
    assert "not done after" in text
