"""Where the lock files can be installed, and the sentence where they cannot."""

import ast
import platform
import sys

import pytest

from requirements import covered, lock
from requirements.covered import Machine, objection

LINUX = Machine("CPython", "3.12", "Linux x86_64", (2, 36))


@pytest.mark.parametrize("python", covered.PYTHONS)
@pytest.mark.parametrize(
    ("place", "library"), [("Linux x86_64", (2, 28)), ("Linux aarch64", (2, 41)), ("Darwin arm64", (14, 0))]
)
def test_covered_pythons_and_platforms_meet_no_objection(python: str, place: str, library: tuple[int, int]) -> None:
    for name in ("build", "dev", "serve-cpu"):
        assert objection(Machine("CPython", python, place, library), name) == ""


@pytest.mark.parametrize(
    ("machine", "name", "sentence"),
    [
        (LINUX._replace(python="3.10"), "dev", "is for CPython 3.11, 3.12, 3.13, 3.14, and this is CPython 3.10"),
        (LINUX._replace(python="3.15"), "dev", "and this is CPython 3.15"),
        (LINUX._replace(python="3.14t"), "dev", "and this is CPython 3.14t"),  # free-threaded: other wheels
        (LINUX._replace(implementation="PyPy"), "dev", "and this is PyPy 3.12"),
        (
            LINUX._replace(platform="Linux riscv64"),
            "dev",
            "Linux x86_64, Linux aarch64, Darwin arm64, and this is Linux riscv64",
        ),
        (LINUX._replace(platform="Windows AMD64"), "dev", "and this is Windows AMD64"),
        (LINUX._replace(platform="Linux aarch64"), "serve-gpu", "is for Linux x86_64, and this is Linux aarch64"),
        (LINUX._replace(library=(2, 27)), "serve-cpu", "needs glibc 2.28 or newer, and this has 2.27"),
        (LINUX._replace(library=None), "serve-cpu", "needs glibc 2.28 or newer, and this has another"),  # musl
        (
            Machine("CPython", "3.12", "Darwin arm64", (13, 6)),
            "serve-cpu",
            "needs macOS 14.0 or newer, and this has 13.6",
        ),
        (LINUX, "crf", "no lock file crf.txt; there are build, dev, dicom"),
    ],
)
def test_what_is_not_covered_is_told_in_a_sentence(machine: Machine, name: str, sentence: str) -> None:
    assert sentence in objection(machine, name)


def test_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(covered, "here", lambda: LINUX)
    assert covered.main(["serve-cpu", "heic"]) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(covered, "here", lambda: LINUX._replace(python="3.19"))
    assert covered.main(["serve-cpu"]) == 1
    assert "LOCK=" in capsys.readouterr().err


def test_this_python_is_told_as_wheels_name_it() -> None:
    here = covered.here()
    assert here.implementation == sys.implementation.name.replace("cpython", "CPython")
    assert here.python.rstrip("t") == "{}.{}".format(*sys.version_info[:2])
    assert here.platform == f"{platform.system()} {platform.machine()}"


def test_a_python_too_old_to_install_us_can_read_it() -> None:
    ast.parse((covered.FOLDER / "covered.py").read_text(), feature_version=(3, 7))


def test_every_platform_is_one_that_locking_proves() -> None:
    assert set(covered.PLATFORMS) == set(lock.UV_PLATFORM)
    assert set(covered.ONLY) <= set(lock.LOCKS)
    assert all(set(places) < set(covered.PLATFORMS) for places in covered.ONLY.values())
