"""A device that is this CPU: the kernels of models/crf/cuda, compiled by g++ behind shim.h.

What it cannot show: speed, real races, and what a GPU's compiler makes of the source. It poisons what is taken but not
written, and notices writes beyond an array's ends.
"""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.crf.cuda.device import Argument, DeviceArray, source

_GUARD = 256
_POISON, _FENCE = 0xA5, 0x5A
_KINDS = {"<f4": "f", "<i4": "i", "<i8": "l"}


def missing() -> str | None:
    """Why nothing can be emulated here, or None."""
    return None if shutil.which("g++") else "no g++ here, which compiles the kernels for the CPU"


@cache
def _library(blocks: int) -> ctypes.CDLL:
    """Compiled once for all test processes, and kept beside the other compiled files."""
    kernels = re.findall(r"__global__ void (\w+)", source())
    launchers = "\n".join(f"LAUNCHER({name})" for name in kernels)
    text = f"{Path(__file__).with_name('shim.h').read_text()}\n{source()}\n{launchers}\n"
    flags = ["-O2", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-w", f"-DBLOCKS={blocks}"]
    if "fma" in Path("/proc/cpuinfo").read_text():
        flags.append("-mfma")  # the same numbers, without a call for each
    folder = Path(__file__).parent / "__pycache__"
    built = folder / f"kernels-{sha256(' '.join([*flags, text]).encode()).hexdigest()[:16]}.so"
    if not built.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            code, made = Path(own) / "kernels.cpp", Path(own) / "kernels.so"
            code.write_text(text)
            subprocess.run(["g++", *flags, str(code), "-o", str(made)], check=True)
            made.replace(built)
    return ctypes.CDLL(str(built))


class Emulator:
    """seed  the order in which blocks and threads run;  launches  how many of each kernel there have been"""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.launches: dict[str, int] = {}

    def active(self) -> AbstractContextManager[object]:
        return nullcontext()

    def program(self, blocks: int) -> "Emulated":
        return Emulated(self, _library(blocks))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        planned = DeviceArray(0, shape, np.dtype(dtype))
        raw = np.full(planned.nbytes + 2 * _GUARD + 256, _FENCE, np.uint8)
        start = _GUARD + -(raw.ctypes.data + _GUARD) % 256
        raw[start : start + planned.nbytes] = _POISON
        memory = _Memory(raw, start, planned.nbytes)
        return DeviceArray(raw.ctypes.data + start, shape, planned.dtype, memory)

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        copy = self.empty(array.shape, array.dtype)
        host = np.ascontiguousarray(array)
        ctypes.memmove(copy.pointer, host.ctypes.data, host.nbytes)
        return copy

    def fill(self, array: DeviceArray, byte: int) -> None:
        ctypes.memset(array.pointer, byte, array.nbytes)

    def download(self, array: DeviceArray) -> NDArray[Any]:
        host = np.empty(array.shape, array.dtype)
        ctypes.memmove(host.ctypes.data, array.pointer, array.nbytes)
        return host


class _Memory:
    """Bytes between two fences; that they still stand is looked at when the memory is given back."""

    broken = 0

    def __init__(self, raw: NDArray[np.uint8], start: int, nbytes: int) -> None:
        self._raw, self._start, self._nbytes = raw, start, nbytes

    def __del__(self) -> None:
        before, after = self._raw[: self._start], self._raw[self._start + self._nbytes :]
        _Memory.broken += int((before != _FENCE).any() or (after != _FENCE).any())


def broken_fences() -> int:
    """Arrays given back so far beyond whose ends something was written."""
    return _Memory.broken


class Emulated:
    def __init__(self, device: Emulator, library: ctypes.CDLL) -> None:
        self._device, self._library = device, library

    def prepared(self, kernel: str, grid: tuple[int, int], threads: int, *args: Argument) -> Callable[[], object]:
        return partial(self._launch, kernel, grid, threads, *args)

    def _launch(self, kernel: str, grid: tuple[int, int], threads: int, *args: Argument) -> None:
        words = [_bits(arg) for arg in args]
        kinds = "".join("p" if arg is None or isinstance(arg, DeviceArray) else _KINDS[arg.dtype.str] for arg in args)
        pointers = (ctypes.c_void_p * len(words))(*(word.ctypes.data for word in words))
        function = getattr(self._library, f"launch_{kernel}")
        if function(*grid, threads, kinds.encode(), pointers, self._device.seed):
            raise TypeError(f"{kernel} does not take {kinds}, or not {threads} threads")
        self._device.launches[kernel] = self._device.launches.get(kernel, 0) + 1


def _bits(arg: Argument) -> NDArray[Any]:
    if arg is None:
        return np.zeros(1, np.uint64)
    return np.array([arg.pointer], np.uint64) if isinstance(arg, DeviceArray) else np.array([arg])
