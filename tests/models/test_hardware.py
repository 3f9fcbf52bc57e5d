"""What the machine has: the container's quota counts, and a file that is not there is no error."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from models import hardware


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that may run on four processors of eight; its quota's file."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(hardware, "_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)],
)
def test_cores_are_those_the_container_may_use(four: Path, quota: str, cores: int) -> None:
    four.write_text(quota)
    assert hardware.cores() == cores
    assert hardware.restricted()


def test_without_a_quota_the_affinity_counts(four: Path) -> None:
    assert hardware.cores() == 4


def test_the_processor_is_named_with_what_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Abacus 9\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name\t: Other\n")
    monkeypatch.setattr(hardware, "_PROCESSOR", info)
    assert hardware.processor() == "Abacus 9 avx2 avx512_vnni"
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "absent")
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "abacus64")
    assert hardware.flags() == frozenset()
    assert hardware.processor() == "abacus64"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone says what is mapped")
def test_mapped_files_leave_memory_and_read_the_same(tmp_path: Path) -> None:
    def resident() -> int:
        fields = Path("/proc/self/status").read_text().split("RssFile:")[1]
        return int(fields.split()[0]) // 1024

    file = tmp_path / "mapped"
    file.write_bytes(b"tessera!" * 2**21)  # 16 MiB
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:].count(b"!") == 2**21
        before = resident()
        hardware.drop_mapped(str(tmp_path / "other"))
        assert resident() > before - 8
        hardware.drop_mapped(str(tmp_path))
        assert resident() < before - 8
        assert mapped[-8:] == b"tessera!"


def test_memory_is_given_back_or_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.trim()

    def no_library(name: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(hardware.ctypes, "CDLL", no_library)
    hardware.trim()
