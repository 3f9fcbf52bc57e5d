"""The lock files: what every line must be, and that they answer everything pyproject.toml asks for."""

import re
from itertools import combinations

import pytest
from packaging.requirements import Requirement

from requirements import lock, pins

HASH = f"--hash=sha256:{'0' * 64}"
UNLOCKED = {"crf"}  # pydensecrf, the tests' oracle: there are only sources, and they want an old Cython


@pytest.mark.parametrize("name", pins.names())
def test_lock_files_hold_names_versions_and_hashes_and_nothing_else(name: str) -> None:
    text = (pins.FOLDER / f"{name}.txt").read_text()
    assert text.startswith(lock.HEADER)
    assert "://" not in text
    assert not re.search(r"[/@~]|(?<!-)-[A-Za-z] |\.whl|\.tar", text.removeprefix(lock.HEADER))
    found = pins.read(name)
    assert all(pin.hashes for pin in found)
    assert len({pin.name for pin in found}) == len(found) > 0


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==2.4.6",
        f"numpy>=2.4 {HASH}",
        f"numpy==2.* {HASH}",
        f"numpy==2.4.6 --hash=md5:{'0' * 32}",
        "numpy==2.4.6 --hash=sha256:00",
        f"numpy @ https://example.org/numpy.whl {HASH}",
        f"./numpy.whl {HASH}",
        "--index-url https://example.org/simple",
        "--find-links wheels",
        "-r other.txt",
        "-e .",
    ],
)
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"x\.txt: .* is no `name==version --hash=sha256:…`"):
        pins.parse(f"{lock.HEADER}{line}\n", "x.txt")


def test_pins_are_read_over_several_lines_and_with_markers() -> None:
    other = f"--hash=sha256:{'1' * 64}"
    one = f"numpy==2.4.6 \\\n    {HASH} \\\n    {other}\n"
    two = f"uvloop==0.23.0 ; sys_platform != 'win32' \\\n    {HASH}\n"
    (numpy, uvloop) = pins.parse(f"# a comment\n{one}{two}", "x")
    assert numpy == ("numpy", "2.4.6", "", frozenset({"0" * 64, "1" * 64}))
    assert (uvloop.marker, uvloop.hashes) == ("sys_platform != 'win32'", frozenset({"0" * 64}))


@pytest.mark.parametrize("name", list(lock.LOCKS))
def test_every_requirement_is_pinned_at_a_version_that_it_allows(name: str) -> None:
    """Fails after a change to pyproject.toml that no `make lock` followed."""
    versions = {pin.name: pin.version for pin in pins.read(name)}
    asked = [Requirement(line) for line in lock.wanted(name, lock.project())]
    assert asked
    for requirement in asked:
        name_there = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name_there in versions, f"{requirement} is not in requirements/{name}.txt: make lock"
        assert requirement.specifier.contains(versions[name_there]), f"{requirement}, {versions[name_there]}: make lock"


def test_every_extra_has_a_lock_file_and_every_file_is_made() -> None:
    extras = {extra for one in lock.LOCKS.values() for extra in one.extras}
    assert extras == set(lock.project()["project"]["optional-dependencies"]) - UNLOCKED
    assert set(lock.LOCKS) == set(pins.names())


def test_what_is_served_has_the_versions_that_the_tests_run_with() -> None:
    tested = {pin.name: pin.version for pin in pins.read("dev")}
    served = {pin.name: pin.version for pin in pins.read("serve-cpu")}
    assert served == {name: tested[name] for name in served}
    on_gpu = {pin.name: pin.version for pin in pins.read("serve-gpu")}
    assert {name: on_gpu[name] for name in on_gpu.keys() & served} == {
        name: served[name] for name in on_gpu.keys() & served
    }


def test_lock_files_that_go_into_one_environment_agree() -> None:
    extras = ("openvino", "heic", "dicom", "geo")
    for one, other in [*combinations(("serve-cpu", *extras), 2), *(("serve-gpu", extra) for extra in extras)]:
        left, right = ({pin.name: pin.version for pin in pins.read(name)} for name in (one, other))
        both = left.keys() & right.keys()
        assert {name: left[name] for name in both} == {name: right[name] for name in both}, (one, other)
