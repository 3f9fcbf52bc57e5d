"""What the machine has: the container's quota counts, and a file that is not there is no error."""

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models import hardware

Say = Callable[..., None]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """A process that may run on four processors of eight. Says what its control groups are, and writes their files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(hardware, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "_HIERARCHY", tmp_path / "fs")

    def write(groups: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            file = tmp_path / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 4), ("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1),
        ("900000 100000\n", 4), ("", 4), ("100000 0", 4),
    ],
)  # fmt: skip
def test_cores_are_those_the_container_may_use(say: Say, quota: str, cores: int) -> None:
    say("0::/\n", {"cpu.max": quota})
    assert hardware.cores() == cores
    assert hardware.restricted()


V1 = "9:name=systemd:/a/b\n4:cpuset:/other\n3:cpu,cpuacct:/a/b\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        # the smallest on the way up
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "20000 10000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "cpu.max": "100000 100000"}, 1),
        # not a way up: beside it, above the mount
        ("0::/a/b\n", {"a/c/cpu.max": "100000 100000", "../cpu.max": "100000 100000"}, 4),
        # its path is the host's, what is mounted is its own
        ("0::/docker/0123\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../0123\n", {"cpu.max": "200000 100000"}, 2),
        # version 1
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "150000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        (V1, {"cpu/other/cpu.cfs_quota_us": "100000\n", "cpu/other/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "100000\n"}, 4),
    ],
)
def test_quotas_hold_for_all_below(say: Say, groups: str, files: dict[str, str], cores: int) -> None:
    say(groups, files)
    assert hardware.cores() == cores


def test_without_a_quota_the_affinity_counts(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.cores() == 4
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert hardware.cores() == 8
    assert not hardware.restricted()


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


def test_its_details_are_the_first_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    first = "processor\t: 0\nmodel\t\t: 9\nmodel name\t: Abacus 9\ncpu MHz\t\t: 100.0\nflags\t\t: fpu avx2\n"
    info.write_text(first + "\n" + first.replace("100.0", "200.0"))
    monkeypatch.setattr(hardware, "_PROCESSOR", info)
    assert hardware.processor_details() == "model\t\t: 9\nmodel name\t: Abacus 9\nflags\t\t: fpu avx2"
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "absent")
    monkeypatch.setattr(hardware.platform, "processor", lambda: "bead")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "abacus64")
    assert hardware.processor_details() == "abacus64 bead"


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
    hardware.release_memory()

    def no_library(name: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(hardware.ctypes, "CDLL", no_library)
    hardware.trim()
    hardware.release_memory()


@pytest.mark.parametrize(("total", "parts"), [(8, [3, 3, 2]), (2, [1, 1, 1]), (1, [1]), (9, [3, 3, 3])])
def test_processes_that_share_the_cores_have_all_of_them_and_one_at_least(total: int, parts: list[int]) -> None:
    assert [hardware.share(total, number + 1, len(parts)) for number in range(len(parts))] == parts
