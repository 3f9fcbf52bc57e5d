"""Which Pythons and machines the lock files were made for: `python -m requirements.covered serve-cpu heic`.

Knows nothing of packages; runs before anything is installed.
"""

import platform
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
# `make lock` proves every pin of every file on each of these: a wheel is there, and its sha256 is in the file.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("Linux x86_64", "Linux aarch64", "Darwin arm64")
ONLY = {  # what onnxruntime-gpu and openvino have wheels for
    "serve-gpu": ("Linux x86_64",),
    "openvino": ("Linux x86_64", "Darwin arm64"),
}
OLDEST = {"Linux": (2, 28), "Darwin": (14, 0)}
LIBRARY = {"Linux": "glibc", "Darwin": "macOS"}


class Machine(NamedTuple):
    """A Python and where it runs; `library` is the version of glibc or macOS, None where it is neither."""

    implementation: str
    python: str
    platform: str
    library: "tuple[int, ...] | None"  # in quotes: a Python too old to install us reads this file to be told so


def here() -> Machine:
    """The Python that runs this, free-threaded ones named as they are in a wheel's tag."""
    system = platform.system()
    name, version = platform.libc_ver() if system == "Linux" else ("macOS", platform.mac_ver()[0])
    known = name == LIBRARY.get(system) and version
    return Machine(
        platform.python_implementation(),
        "{}.{}{}".format(*sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
        f"{system} {platform.machine()}",
        tuple(int(part) for part in version.split(".")[:2]) if known else None,
    )


def objection(machine: Machine, lock: str) -> str:
    """Why a lock file cannot be installed here; empty where it can."""
    places = ONLY.get(lock, PLATFORMS)
    system = machine.platform.split()[0]
    if not (FOLDER / f"{lock}.txt").is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.txt")))
        return f"requirements/ has no lock file {lock}.txt; there are {names}"
    if machine.implementation != "CPython" or machine.python not in PYTHONS:
        return (
            f"requirements/{lock}.txt is for CPython {', '.join(PYTHONS)}, "
            f"and this is {machine.implementation} {machine.python}"
        )
    if machine.platform not in places:
        return f"requirements/{lock}.txt is for {', '.join(places)}, and this is {machine.platform}"
    if machine.library is None or machine.library < OLDEST[system]:
        least = ".".join(map(str, OLDEST[system]))
        found = "another" if machine.library is None else ".".join(map(str, machine.library))
        return f"requirements/{lock}.txt needs {LIBRARY[system]} {least} or newer, and this has {found}"
    return ""


def main(locks: "list[str]") -> int:
    """0 where every lock file can be installed here, else 1 and a sentence."""
    for lock in locks:
        problem = objection(here(), lock)
        if problem:
            print(
                f"{problem}. `make … PYTHON=python3.13` takes another Python; with `LOCK=` make installs what"
                " pyproject.toml's ranges allow, without hashes.",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
