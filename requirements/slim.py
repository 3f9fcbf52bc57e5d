"""What an environment that only serves does not need, taken out of it: `python -m requirements.slim /opt/tessera`.

Three things go: the installers, other packages' own tests, and the symbol tables of compiled modules. A module is
replaced by its stripped copy only where that still loads: wheels whose libraries were moved about after linking
(numba's thread pools) hold segments that `strip` puts where no loader takes them. The records of the packages keep
what their wheels brought, so what was changed can be told.

Knows nothing of what the packages do. Needs `strip`, of binutils.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

INSTALLERS = ("pip", "setuptools")
_LOADS = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_TIMEOUT_S = 120
_LEFT = "nvidia"  # its licences want its libraries as they are


def packages(environment: Path) -> Path:
    """Where a virtual environment has its packages. ValueError: it is none."""
    found = [*environment.glob("lib/python3*/site-packages")]
    if len(found) != 1 or not (environment / "pyvenv.cfg").is_file():
        raise ValueError(f"{environment} is no virtual environment")
    return found[0]


def tests(site: Path) -> Iterator[Path]:
    """The outermost folders of tests inside packages; one beside the packages is a package of that name."""
    for package in site.iterdir():
        if package.is_dir():
            for folder, below, _ in os.walk(package):
                mine = [name for name in below if name in ("test", "tests")]
                below[:] = [name for name in below if name not in mine]
                yield from (Path(folder) / name for name in mine)


def modules(site: Path) -> Iterator[Path]:
    """Compiled modules; not the libraries that auditwheel put in `….libs`, whose segments it moved, nor NVIDIA's."""
    for library in site.rglob("*.so"):
        inside = library.relative_to(site).parts[:-1]
        if not library.is_symlink() and inside[:1] != (_LEFT,) and not any(part.endswith(".libs") for part in inside):
            yield library


def strip(library: Path, python: Path) -> int:
    """Replaces a compiled module by a copy without symbols, where that copy loads; how many bytes smaller it is."""
    copy = library.with_name(f"{library.name}.stripped")  # beside it: what it loads lies relative to it
    try:
        subprocess.run(
            ["strip", "--strip-unneeded", "-o", copy, library], check=True, capture_output=True, timeout=_TIMEOUT_S
        )
        saved = library.stat().st_size - copy.stat().st_size
        if saved <= 0 or not loads(copy, python):
            return 0
        shutil.copystat(library, copy)
        copy.replace(library)
        return saved
    finally:
        copy.unlink(missing_ok=True)


def loads(library: Path, python: Path) -> bool:
    """Whether a Python can load it, every symbol that it names included."""
    asked = subprocess.run([python, "-c", _LOADS, library], capture_output=True, check=False, timeout=_TIMEOUT_S)
    return asked.returncode == 0


def slim(environment: Path) -> dict[str, int]:
    """Takes out all three; bytes saved by each. CalledProcessError: pip or strip failed."""
    site, python = packages(environment), environment / "bin" / "python"
    before = size(environment)
    for folder in [*tests(site)]:
        shutil.rmtree(folder)
    without_tests = size(environment)
    symbols = sum(strip(library, python) for library in sorted(modules(site)))
    if (site / "pip").is_dir():
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *INSTALLERS], check=True)
    installers = without_tests - symbols - size(environment)
    return {"tests": before - without_tests, "symbols": symbols, "installers": installers}


def size(folder: Path) -> int:
    """Of all files below a folder, in bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m requirements.slim", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environment", type=Path, help="a virtual environment that nobody installs into any more")
    environment = parser.parse_args(arguments).environment
    if shutil.which("strip") is None:
        sys.exit("requirements.slim needs `strip`: install binutils")
    try:
        saved = slim(environment)
    except ValueError as error:
        sys.exit(f"requirements.slim: {error}")
    print(", ".join(f"{what} {count / 1e6:.0f} MB" for what, count in saved.items()) + f" out of {environment}")


if __name__ == "__main__":
    main()
