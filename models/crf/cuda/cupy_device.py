"""The device that is a GPU: memory, copies and launches through cupy.

Knows nothing of images or labels. cupy is imported with the first use; its NVRTC compiles the kernels, which include
nothing, so no CUDA toolkit is needed. Compiled kernels are kept on disk by cupy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.crf.cuda.device import Argument, Device, DeviceArray, Program, options, source

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2


@cache
def available() -> str | None:
    """Why there is no GPU to work on, or None where there is one."""
    try:
        import cupy
    except Exception as error:  # a missing library is an ImportError, a broken driver may be anything
        return f"cupy cannot be imported ({_first_line(error)}); install the `gpu` extra"
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "cupy finds no GPU"
        cupy.cuda.Device(0).compute_capability  # noqa: B018, a broken driver raises here
    except Exception as error:
        return f"cupy finds no GPU ({_first_line(error)})"
    return None


class GPU:
    """One CUDA device, and a stream of its own: what other streams made must be done before it is handed in."""

    def __init__(self, number: int = 0) -> None:
        import cupy

        self._cupy = cupy
        self._number = number
        with cupy.cuda.Device(number):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._programs: dict[int, Program] = {}
        self._lock = Lock()

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._cupy.cuda.Device(self._number), self._stream:
            yield

    def program(self, blocks: int) -> Program:
        with self._lock:
            if blocks not in self._programs:
                self._programs[blocks] = _Module(self._cupy, blocks)
            return self._programs[blocks]

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        planned = DeviceArray(0, shape, np.dtype(dtype))
        memory = self._cupy.cuda.alloc(max(1, planned.nbytes))
        return DeviceArray(int(memory.ptr), shape, planned.dtype, memory)

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        host = np.ascontiguousarray(array)
        copy = self.empty(array.shape, array.dtype)
        self._copy(copy.pointer, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)
        return copy

    def fill(self, array: DeviceArray, byte: int) -> None:
        self._cupy.cuda.runtime.memsetAsync(array.pointer, byte, array.nbytes, self._stream.ptr)

    def download(self, array: DeviceArray) -> NDArray[Any]:
        host = np.empty(array.shape, array.dtype)
        with self.active():
            self._copy(host.ctypes.data, array.pointer, array.nbytes, _DEVICE_TO_HOST)
            self._stream.synchronize()
        return host

    def _copy(self, to: int, origin: int, nbytes: int, direction: int) -> None:
        # Pageable memory: CUDA has read the host's side by the time the call returns.
        if nbytes:
            self._cupy.cuda.runtime.memcpyAsync(to, origin, nbytes, direction, self._stream.ptr)


class _Module:
    def __init__(self, cupy: Any, blocks: int) -> None:
        self._module = cupy.RawModule(code=source(), options=options(blocks))
        self._kernels: dict[str, Any] = {}

    def prepared(self, kernel: str, grid: tuple[int, int], threads: int, *args: Argument) -> Callable[[], object]:
        if kernel not in self._kernels:
            self._kernels[kernel] = self._module.get_function(kernel)
        return partial(self._kernels[kernel], grid, (threads,), tuple(_word(arg) for arg in args))


def _word(arg: Argument) -> np.number[Any]:
    if arg is None:
        return np.uint64(0)
    return np.uint64(arg.pointer) if isinstance(arg, DeviceArray) else arg


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_device(number: int = 0) -> Device:
    """The GPU of that number. Raises RuntimeError where available() tells why there is none."""
    if reason := available():
        raise RuntimeError(reason)
    return GPU(number)
