"""A built image's files and what it says of itself: what must be in it, and what must not.

Knows nothing of how it is run.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

COMPILERS = ("as", "c++", "cc", "clang", "cpp", "g++", "gcc", "ld", "nvcc", "rustc", "tcc")
_BINARIES = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "opt/tessera/bin")
TORCH = ("torch", "torchvision", "triton", "timm")
SBOM = "io.tessera.sbom"


class Image(NamedTuple):
    """An image's root folder, mounted, and its configuration (the OCI specification's `config`)."""

    root: Path
    config: dict[str, Any]

    def inside(self, path: str) -> Path:
        """A path in the image as one of this machine."""
        return self.root / path.lstrip("/")

    def problems(self, torch: bool) -> Iterator[str]:
        """Everything that is not as it should be, a sentence each; `torch` is whether it may be there."""
        if found := compilers(self.root):
            yield f"a compiler is in the image: {', '.join(found)}"
        names = installed(self.root)
        if not torch and (found := sorted(names & {*TORCH})):
            yield f"torch, or what needs it, is in the image: {', '.join(found)}"
        if torch and "torch" not in names:
            yield "torch is not in the image"
        user = str(self.config.get("User", ""))
        if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user):
            yield f"it runs as {user or 'root'!r}, and not as a number other than 0, by which Kubernetes knows no root"
        if self.config.get("StopSignal") != "SIGTERM":
            yield f"its stop signal is {self.config.get('StopSignal')}"
        for place in self.config.get("Volumes", {}):
            if str(self.inside(place).stat().st_uid) != user.partition(":")[0]:
                yield f"the volume {place} begins as another's than the user's"
        yield from self._sbom_problems(names)

    def _sbom_problems(self, names: set[str]) -> Iterator[str]:
        place = self.config.get("Labels", {}).get(SBOM, "")
        if not place or not self.inside(place).is_file():
            yield f"the label {SBOM} is {place!r}, and that is no file of the image"
            return
        said = json.loads(self.inside(place).read_text())
        listed = {_normal(part["name"]) for part in said["components"]}
        listed.add(_normal(said["metadata"]["component"]["name"]))
        if said.get("bomFormat") != "CycloneDX" or listed != names:
            yield f"{place} is not what is installed: they differ in {', '.join(sorted(listed ^ names)) or 'format'}"


def compilers(root: Path) -> list[str]:
    """Programs of an image that compile or link, on any path where programs are looked for."""
    named = (path for folder in _BINARIES for path in (root / folder).glob("*"))
    plain = re.compile(rf"(?:.*-)?(?:{'|'.join(map(re.escape, COMPILERS))})(?:-[\d.]+)?(?:\.exe)?")
    return sorted({f"/{path.relative_to(root)}" for path in named if plain.fullmatch(path.name)})


def installed(root: Path) -> set[str]:
    """The distributions of the environment in an image, by their normalized names."""
    return {
        _normal(path.name.removesuffix(".dist-info").rpartition("-")[0])
        for path in root.glob("opt/tessera/lib/python3*/site-packages/*.dist-info")
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
