"""How much of a device's memory a batch of images needs, and which images fit into it together.

Knows nothing of kernels: names, shapes and types of arrays. `front` has what depends on the pixels, `back` what depends
on the vertices of the lattices, whose number is known only once they have been counted.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.crf.cuda.device import Device, DeviceArray
from models.crf.cuda.structs import BLEND, CORNERS, EDGE, LONG, PAIR, STATUS
from models.errors import TesseraError

Shaped = tuple[tuple[int, ...], DTypeLike]
ALIGNMENT = 256


class OutOfMemory(TesseraError):
    """An image whose CRF does not fit into the memory it may take."""


def front(table: NDArray[Any], blocks: int, places: int) -> dict[str, Shaped]:
    """For IMAGE [images], with rows of 32 · blocks labels and so many places in the hash table for each pixel."""
    pixels = table["height"] * table["width"]
    count, slots, images = int(pixels.sum()), int(powers(pixels * places).sum()), len(table)
    rows = _rows(count, blocks)
    return {
        "status": ((images,), STATUS),
        "reserved": ((images,), np.int32),
        "long_counts": ((images,), np.int32),
        "longs": ((count * CORNERS // LONG + images,), np.int32),
        "table": ((slots,), np.uint64),
        "ids": ((slots,), np.int32),
        "vertex": ((count, CORNERS), np.int32),
        "weight": ((count, CORNERS), np.float32),
        "edges": ((count, CORNERS), EDGE),
        "unary": rows,
        "steps": ((count,), np.float32),
        "rows": rows,
        "other_rows": rows,
    }


def back(vertices: int, blocks: int) -> dict[str, Shaped]:
    """For so many vertices in all."""
    rows = _rows(vertices, blocks)
    return {
        "degree": ((vertices,), np.int32),
        "first": ((vertices,), np.int32),
        "mass": ((vertices,), np.uint64),
        "scaled": ((vertices,), np.uint64),
        "blurred": ((vertices,), np.float32),
        "blurring": ((vertices,), np.float32),
        "pairs": ((CORNERS, vertices), PAIR),
        "blends": ((CORNERS, vertices), BLEND),
        "values": rows,
        "other_values": rows,
    }


def _rows(count: int, blocks: int) -> Shaped:
    return (count, 32 * blocks), np.uint32


def powers(least: NDArray[np.int64]) -> NDArray[np.int64]:
    """The powers of two that are at least so large, and at least 64."""
    return np.int64(1) << np.ceil(np.log2(np.maximum(least, 64))).astype(np.int64)


def needs(wanted: dict[str, Shaped]) -> int:
    """Bytes, each array from a whole multiple of ALIGNMENT on."""
    return sum(_rounded(prod(shape) * np.dtype(kind).itemsize) for shape, kind in wanted.values())


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def runs(count: int, fits: Callable[[slice], bool]) -> Iterator[slice]:
    """Cuts 0..count into runs, each as long as it fits, and one long where nothing fits."""
    start = 0
    while start < count:
        stop = start + 1
        while stop < count and fits(slice(start, stop + 1)):
            stop += 1
        yield slice(start, stop)
        start = stop


class Workspace:
    """One block of a device's memory that grows to what the largest batch needed, and is carved anew for each.

    Memory stays flat under images of all sizes: nothing is left in pieces.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._block = DeviceArray(0, (0,), np.dtype(np.uint8))

    @property
    def nbytes(self) -> int:
        return self._block.nbytes

    def release(self) -> None:
        self._block = DeviceArray(0, (0,), np.dtype(np.uint8))

    def carve(self, wanted: dict[str, Shaped]) -> dict[str, DeviceArray]:
        """Arrays of the shapes and types that are wanted, one behind the other, with arbitrary contents."""
        needed = needs(wanted)
        if needed > self.nbytes:
            self.release()  # before more is taken
            self._block = self._device.empty((needed,), np.uint8)
        arrays, offset = {}, 0
        for name, (shape, kind) in wanted.items():
            arrays[name] = DeviceArray(self._block.pointer + offset, shape, np.dtype(kind), self._block)
            offset += _rounded(arrays[name].nbytes)
        return arrays
