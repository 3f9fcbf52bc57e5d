"""Images as squares of a few sizes, each image decoded once, however often it is asked for.

Knows nothing of networks or views. The squares lie in a file without a name: it goes when the process ends, however.
"""

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from models.terminal.progress import say
from models.types import Array
from training.data import crops
from training.data.images import Images

_SHARE_OF_DISK = 0.5  # of what is free, that squares may take

Square = tuple[Array, Array | None]  # uint8 [S, S, 3], and where it holds data: bool [S, S], None: everywhere


class SquareCache:
    """The central squares of a run's images at the given sizes.

    folder  on whose disk they are kept; where it has not the room, every image is decoded each time, which is said
    """

    def __init__(self, images: Images, sizes: Sequence[int], folder: Path, console: Console) -> None:
        self.images, self.sizes = images, tuple(sizes)
        self._bytes = sum(4 * size**2 for size in self.sizes)  # three of color, one of validity
        self._kept = np.zeros(len(images), bool)
        self._lock = threading.Lock()
        needed, free = self._bytes * len(images), shutil.disk_usage(folder).free
        self._file: int | None = None
        if needed <= _SHARE_OF_DISK * free and hasattr(os, "pread"):
            self._file, path = tempfile.mkstemp(dir=folder)
            os.unlink(path)
            weakref.finalize(self, os.close, self._file)
        else:
            say(console, f"images are decoded anew each time: kept, they would take {needed / 1e9:.1f} GB of {folder}")

    def load(self, i: int, size: int) -> Square:
        """Image i at one of the sizes. Raises what decoding it raises."""
        at = self.sizes.index(size)
        if self._file is not None and self._kept[i]:
            start = i * self._bytes + sum(4 * s**2 for s in self.sizes[:at])
            return _unpacked(os.pread(self._file, 4 * size**2, start), size)
        decoded = self.images.load(i)
        if self._file is None:
            return _square(decoded.image, decoded.valid, size)
        squares = [_square(decoded.image, decoded.valid, s) for s in self.sizes]
        self._keep(i, b"".join(_packed(*square) for square in squares))
        return squares[at]

    def _keep(self, i: int, data: bytes) -> None:
        assert self._file is not None
        try:
            whole = os.pwrite(self._file, data, i * self._bytes) == len(data)
        except OSError:  # the disk is full after all: this one is decoded again
            return
        with self._lock:
            self._kept[i] = whole


def _square(image: Array, valid: Array | None, size: int) -> Square:
    return crops.square(image, size), None if valid is None else crops.square(valid, size, "nearest")


def _packed(pixels: Array, valid: Array | None) -> bytes:
    known = np.ones(pixels.shape[:2], np.uint8) if valid is None else valid.astype(np.uint8)
    return pixels.tobytes() + known.tobytes()


def _unpacked(data: bytes, size: int) -> Square:
    values = np.frombuffer(data, np.uint8)
    pixels, known = values[: 3 * size**2].reshape(size, size, 3), values[3 * size**2 :].reshape(size, size) > 0
    return pixels, None if known.all() else known
