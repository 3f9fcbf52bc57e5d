"""What a wheel and an sdist have in them, held against what they must have: nothing less, and nothing more.

Knows nothing of how they are built.
"""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

from requirements.release.refusal import Refusal

ROOMS = ("models", "service", "tessera", "training")
KERNELS = "models/native/_kernels.abi3.so"
_INFO = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
_EGG_INFO = ("PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt")
_BESIDE = ("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg")


def installed(source: Path, project: dict[str, Any]) -> set[str]:
    """What an installation of a source tree has of it: every module, and the data that pyproject.toml names.

    Refusal: a file of the rooms is neither, nor a source of the kernels, so it would be left behind in silence.
    """
    setuptools = project["tool"]["setuptools"]
    wanted = {path for room in ROOMS for path in (source / room).rglob("*.py")}
    for room, patterns in setuptools["package-data"].items():
        wanted |= {path for pattern in patterns for path in (source / room).glob(pattern) if path.is_file()}
    names = {path.relative_to(source).as_posix() for path in wanted}
    everything = {p.relative_to(source).as_posix() for room in ROOMS for p in (source / room).rglob("*") if p.is_file()}
    if forgotten := sorted(everything - names - kernel_sources(project)):
        raise Refusal(f"pyproject.toml's package-data names no pattern for {', '.join(forgotten)}")
    return names


def kernel_sources(project: dict[str, Any]) -> set[str]:
    """The C files and headers that pyproject.toml names."""
    modules = project["tool"]["setuptools"]["ext-modules"]
    return {name for module in modules for name in [*module["sources"], *module.get("depends", ())]}


def check_wheel(wheel: Path, modules: set[str], version: str, kernels: bool) -> None:
    """Refusal: the wheel lacks something, or has something else. `modules` are of `installed`."""
    information = {f"tessera_segmentation-{version}.dist-info/{name}" for name in _INFO}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    _compare(wheel.name, names, modules | information | ({KERNELS} if kernels else set()))


def check_sdist(sdist: Path, modules: set[str], version: str, sources: set[str]) -> None:
    """Refusal: the sdist lacks something, or has something else. `sources` are those of the kernels."""
    top = f"tessera_segmentation-{version}"
    with tarfile.open(sdist) as archive:
        names = {member.name for member in archive if not member.isdir()}
    egg_info = {f"tessera_segmentation.egg-info/{name}" for name in _EGG_INFO}
    _compare(sdist.name, names, {f"{top}/{name}" for name in modules | sources | egg_info | {*_BESIDE}})


def _compare(archive: str, names: set[str], wanted: set[str]) -> None:
    said = [f"lacks {name}" for name in sorted(wanted - names)] + [f"has {name}" for name in sorted(names - wanted)]
    if said:
        more = f" and {len(said) - 5} differences more" if len(said) > 5 else ""
        raise Refusal(f"{archive} is not what the commit says: it {', '.join(said[:5])}{more}")
