"""The files of a bundle's folder, read with bounds: plain files only, of the names and sizes a bundle has.

Knows nothing of what is in them. Nothing is opened before it is known to be a plain file: a pipe would wait for ever.
"""

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.errors import TesseraError

REQUIRED = ("encoder.onnx", "centroids.npy", "golden.npz", "report.json", "NOTICE")
OPTIONAL = ("positions.npy",)
MAX_BYTES = {
    "manifest.json": 2 * 2**20,
    "encoder.onnx": 2**31 - 1,  # what one protocol buffer can hold
    "centroids.npy": 8 * 2**20,
    "positions.npy": 16 * 2**20,
    "golden.npz": 40 * 2**20,
    "report.json": 8 * 2**20,
    "NOTICE": 2**20,
}
MAX_EXEMPLAR_BYTES = 2**20
_EXEMPLARS = "exemplars"
_EXEMPLAR = re.compile(rf"{_EXEMPLARS}/([0-9]{{3}})_[0-9]{{1,2}}\.webp")
_CHUNK = 2**20
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class BundleError(TesseraError):
    """A folder that is not a sound bundle; the message says which file and why."""


def exemplar_of(name: str) -> int | None:
    """The cluster whose patch a file is; None for other files."""
    found = _EXEMPLAR.fullmatch(name)
    return int(found[1]) if found else None


def read(folder: Path, name: str) -> bytes:
    """A file's bytes. Raises BundleError where it is missing, no plain file, or larger than such a file may be."""
    with _opened(folder, name) as (file, size):
        data = file.read(size + 1)
    if len(data) > size:
        raise BundleError(f"{folder.name}/{shown(name)} grows while it is read")
    return data


def sha256(folder: Path, name: str) -> str:
    """A file's digest, its bytes read a megabyte at a time. Raises what `read` does."""
    digest = hashlib.sha256()
    with _opened(folder, name) as (file, left):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if (left := left - len(chunk)) < 0:
                raise BundleError(f"{folder.name}/{shown(name)} grows while it is read")
    return digest.hexdigest()


def check_listing(folder: Path, listed: Collection[str]) -> None:
    """Raises BundleError for anything in the folder that is not listed, or no plain file. The first ends the search."""
    for entry, name in _entries(folder):
        if entry.is_symlink():
            raise BundleError(f"{folder.name}/{shown(name)} is a symlink; bundles hold plain files only")
        if not entry.is_file(follow_symlinks=False):
            raise BundleError(f"{folder.name}/{shown(name)} is no plain file; bundles hold nothing else")
        if name not in listed:
            raise BundleError(f"{folder.name}/{shown(name)} is not listed in the manifest")


def shown(text: str, most: int = 100) -> str:
    """A text as a sentence can hold it: short, on one line, without control characters or broken ones."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])


def _entries(folder: Path) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """What lies in the folder and in its `exemplars`, with its name from the folder on."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name == _EXEMPLARS and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as patches:
                    for patch in patches:
                        yield patch, f"{_EXEMPLARS}/{patch.name}"
            elif entry.name != "manifest.json" or not entry.is_file(follow_symlinks=False):
                yield entry, entry.name


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """A plain file, and how many bytes it has: no more than such a file may have."""
    path, most = folder / name, MAX_BYTES.get(name, MAX_EXEMPLAR_BYTES)
    try:
        plain = stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        plain = False
    if not plain:
        raise BundleError(f"{folder.name}/{shown(name)} is missing or not a plain file")
    with open(os.open(path, _FLAGS), "rb") as file:
        held = os.fstat(file.fileno())
        if not stat.S_ISREG(held.st_mode) or held.st_size > most:
            raise BundleError(
                f"{folder.name}/{shown(name)} is larger than the {most / 2**20:.0f} MiB such a file may have"
            )
        yield file, held.st_size
