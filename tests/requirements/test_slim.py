"""What is taken out of an environment, and what is left alone."""

import sys
from pathlib import Path

import pytest

from requirements import slim


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """One with a package that has tests, a package called `tests`, and compiled modules that are no such thing."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").touch()
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in (
        "numpy/core.so", "numpy/tests/test_core.py", "numpy/tests/data/tests/a.py", "numpy/lib/test/b.py",
        "numpy/testing.py", "tests/__init__.py", "numpy.libs/blas.so", "nvidia/cuda/lib/libcuda.so", "latest/a.py",
    ):  # fmt: skip
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 100)
    return tmp_path


def test_tests_inside_packages_go_and_a_package_of_that_name_stays(environment: Path) -> None:
    site = slim.packages(environment)
    assert sorted(str(path.relative_to(site)) for path in slim.tests(site)) == ["numpy/lib/test", "numpy/tests"]


def test_libraries_that_others_rewrote_or_own_are_left(environment: Path) -> None:
    site = slim.packages(environment)
    assert [str(path.relative_to(site)) for path in slim.modules(site)] == ["numpy/core.so"]


@pytest.mark.parametrize(("still_loads", "left"), [(True, "small"), (False, "x" * 100)])
def test_a_stripped_copy_takes_its_place_only_where_it_loads(
    still_loads: bool, left: str, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = environment / "bin" / "strip"
    program.write_text('#!/bin/sh\n[ "$1" = --strip-unneeded ] && printf small > "$3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(slim, "loads", lambda library, python: still_loads)
    library = slim.packages(environment) / "numpy" / "core.so"
    assert slim.strip(library, environment / "bin" / "python") == (95 if still_loads else 0)
    assert library.read_text() == left
    assert [path.name for path in library.parent.glob("core*")] == ["core.so"]


def test_what_is_no_library_does_not_load(environment: Path) -> None:
    library = slim.packages(environment) / "numpy" / "core.so"
    assert not slim.loads(library, environment / "bin" / "python")


def test_all_of_it_and_how_much(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slim, "strip", lambda library, python: 0)
    assert slim.slim(environment) == {"tests": 300, "symbols": 0, "installers": 0}
    assert [*slim.tests(slim.packages(environment))] == []


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no virtual environment"):
        slim.slim(tmp_path)
