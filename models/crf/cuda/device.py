"""Memory and launches on a device, as small as the CRF needs them; and the source of its kernels.

Knows nothing of images or labels. cupy_device.py has the one that is a GPU; the tests have one that runs the same
kernels on the CPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

SOURCES = ("cells", "lattice", "mean_field", "grid")
OPTIONS = ("--std=c++17", "--fmad=false")  # fused only where the source says so: one way to round, everywhere


@dataclass(frozen=True)
class DeviceArray:
    """An array in a device's memory, its elements side by side.

    owner  what keeps the memory alive: cupy's, or another array
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object = None

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def part(self, start: int, shape: tuple[int, ...]) -> "DeviceArray":
        """So many elements from the flat index `start` on, under a shape of their own."""
        return DeviceArray(self.pointer + start * self.dtype.itemsize, shape, self.dtype, self)


Argument = DeviceArray | np.number[Any] | None  # None is a null pointer; numbers have the kernel's own type
AnyArray = NDArray[Any] | DeviceArray


class Program(Protocol):
    """Compiled kernels."""

    def prepared(self, kernel: str, grid: tuple[int, int], threads: int, *args: Argument) -> Callable[[], object]:
        """What queues grid[0] · grid[1] blocks of `threads` threads each time it is called, without waiting for them.

        The arrays must live until the last call.
        """
        ...


class Device(Protocol):
    """Everything happens in the order in which it is asked for, and inside `with device.active():` but for download."""

    def active(self) -> AbstractContextManager[object]: ...
    def program(self, blocks: int) -> Program:
        """The kernels for rows of 32 · blocks labels. Kept."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Its contents are arbitrary."""
        ...

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        """A copy, elements side by side; the original may change as soon as this returns."""
        ...

    def fill(self, array: DeviceArray, byte: int) -> None: ...
    def download(self, array: DeviceArray) -> NDArray[Any]:
        """A copy, once all that was asked for has been done."""
        ...


@cache
def source() -> str:
    """All kernels, in one piece that includes nothing."""
    folder = Path(__file__).parent
    return "\n".join(f'#line 1 "{name}.cu"\n{(folder / f"{name}.cu").read_text()}' for name in SOURCES)


def options(blocks: int) -> tuple[str, ...]:
    """What the compiler is told."""
    return (*OPTIONS, f"-DBLOCKS={blocks}")


def on_device(device: Device, array: AnyArray) -> DeviceArray:
    """The array itself where it lies on the device already, otherwise a copy there."""
    return array if isinstance(array, DeviceArray) else device.upload(array)
