"""A plan refuses what cannot end, and tells the rest to people and to the report."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import TesseraError
from training.planning.plan import Part, Plan


def planned(**changes: int | None) -> Plan:
    parts = (
        Part("features", 10, "images", 30.0, disk_bytes=7 * 10**9, memory_bytes=10**9),
        Part("fit", 5, "steps", 60.0),
    )
    made = Plan(10, 1, "cpu", parts, process_bytes=10**9, free_disk_bytes=10**10, free_memory_bytes=4 * 10**9)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_would_break_late_is_refused(tmp_path: Path) -> None:
    planned().require_room(tmp_path)
    planned(free_memory_bytes=None).require_room(tmp_path)
    with pytest.raises(TesseraError, match=r"takes 7\.0 GB of disk, 7\.0 GB of it for features, and .* 6\.0 GB left"):
        planned(free_disk_bytes=6 * 10**9).require_room(tmp_path)
    with pytest.raises(TesseraError, match=r"features holds 1\.0 GB of memory at once, and 500 MB are left"):
        planned(free_memory_bytes=5 * 10**8).require_room(tmp_path)


def test_a_plan_for_people_and_for_the_report() -> None:
    text = "\n".join(planned().lines())
    assert "10 images  about 30 s  7.0 GB on disk" in text
    assert "in all about 1.5 min on cpu; 7.0 GB of disk (10.0 GB free), 2.0 GB of memory (4.0 GB free)" in text
    facts = planned().facts()
    assert (facts["seconds"], facts["disk_bytes"], facts["parts"][1]["name"]) == (90.0, 7 * 10**9, "fit")
