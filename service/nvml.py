"""What NVIDIA's driver says of its GPUs, through NVML: memory and utilization, read beside the server.

Knows nothing of CUDA, of what runs there, or of Prometheus. Where there is no driver there are no devices.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_PERIOD_S = 5.0
_STALE_S = 30.0
_NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE


@dataclass(frozen=True)
class Device:
    """One GPU. utilization: share of the last second or less in which a kernel ran; None: it does not say (MIG)."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    utilization: float | None


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Utilization(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("gpu", "memory")]


class Nvml:
    """The driver's library, initialized. `library` has the functions of nvml.h."""

    def __init__(self, library: Any) -> None:
        """Raises OSError where the driver does not answer."""
        self._library = library
        self._check(library.nvmlInit_v2())

    @classmethod
    def find(cls) -> "Nvml | None":
        """The one of this machine; None where there is no driver, or no GPU that it reaches."""
        with suppress(OSError, AttributeError):
            return cls(ctypes.CDLL("libnvidia-ml.so.1"))
        return None

    def devices(self) -> list[Device]:
        """Every GPU that this process may see; one that does not answer (it fell off the bus) is left out. OSError."""
        count = ctypes.c_uint()
        self._check(self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        found = []
        for index in range(count.value):
            with suppress(OSError):
                found.append(self._device(index))
        return found

    def _device(self, index: int) -> Device:
        library, handle, memory, busy = self._library, ctypes.c_void_p(), _Memory(), _Utilization()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._check(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)))
        self._check(library.nvmlDeviceGetName(handle, name, ctypes.c_uint(_NAME_BYTES)))
        self._check(library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)))
        told = library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)) == 0
        return Device(
            index, name.value.decode(errors="replace"), memory.used, memory.total, busy.gpu / 100 if told else None
        )

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise OSError(f"NVML answers {code}")


class DeviceMeter:
    """The GPUs' latest figures, read every few seconds by a thread of its own: a driver that hangs holds up nobody.

    read  tells them, and may raise OSError;  period_s  between two readings;  stale_s  after which one counts no more
    """

    def __init__(
        self, read: Callable[[], list[Device]], *, period_s: float = _PERIOD_S, stale_s: float = _STALE_S
    ) -> None:
        self._read, self._period_s, self._stale_s = read, period_s, stale_s
        self._latest: tuple[float, list[Device]] = (0.0, [])
        self._closed = threading.Event()

    @classmethod
    def find(cls) -> "DeviceMeter | None":
        """Of this machine's GPUs; None where NVIDIA's driver is not there."""
        found = Nvml.find()
        return cls(found.devices) if found else None

    def start(self) -> None:
        """Reads from now on, until `close`."""
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def devices(self) -> list[Device]:
        """As they were a few seconds ago; none where the driver has stopped answering."""
        at, devices = self._latest
        return devices if time.monotonic() - at < self._stale_s else []

    def close(self) -> None:
        """No further reading."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            with suppress(OSError):
                self._latest = (time.monotonic(), self._read())
            self._closed.wait(self._period_s)
