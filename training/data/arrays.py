"""Arrays on disk that are filled little by little: memory-mapped, their room taken beforehand.

Knows nothing of what is in them. A file with holes that is memory-mapped ends the process that fills it on a full disk,
without a word; here the disk has given the room before the first number is written.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from models.errors import TesseraError
from models.types import Array

try:
    import fcntl
except ImportError:  # Windows: two processes would do the same work twice
    fcntl = None  # type: ignore[assignment]

Shapes = Mapping[str, tuple[tuple[int, ...], DTypeLike]]  # a file's name without .npy → its array


def open_arrays(folder: Path, shapes: Shapes, *, what: str, advice: str) -> dict[str, Array]:
    """The arrays of a folder for reading and writing, by name: as they are where all of them are there, zeros else.

    Raises TesseraError where the disk has not the room; nothing is left then.
    """
    paths = {name: folder / f"{name}.npy" for name in shapes}
    if all(path.exists() for path in paths.values()):
        return {name: np.load(path, mmap_mode="r+") for name, path in paths.items()}
    needed = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    free = shutil.disk_usage(folder).free
    problem = f"{what} take {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left: {advice}"
    if needed > free:
        raise TesseraError(problem)
    try:
        return {name: _made(path, *shapes[name]) for name, path in paths.items()}
    except OSError as error:
        for path in paths.values():
            path.unlink(missing_ok=True)
        raise TesseraError(f"{problem} ({error.strerror})") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait. The end of a process, whatever it is, is the end of its lock."""
    with (folder / "lock").open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    made = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
    return made
