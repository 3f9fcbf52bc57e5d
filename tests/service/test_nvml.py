"""GPUs as NVIDIA's library tells of them, by a double of it: no GPU is needed, and none was asked."""

import ctypes
import threading
from typing import Any

import pytest

from service import nvml
from service.metrics import Metrics
from service.nvml import Device, DeviceMeter, Nvml
from tests.service.fakes import wait_until

NOT_SUPPORTED, LOST = 3, 15


class Library:
    """The functions of nvml.h that are asked, over two GPUs; the second is a slice (MIG) that tells no utilization."""

    def __init__(self, *, broken: int = 0, lost: int | None = None) -> None:
        self.broken, self.lost = broken, lost

    def nvmlInit_v2(self) -> int:
        return self.broken

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = 0x1000 + index.value
        return LOST if index.value == self.lost else 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, name: Any, length: ctypes.c_uint) -> int:
        assert length.value == len(name)
        name.value = b"NVIDIA H" + str(handle.value).encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        assert ctypes.sizeof(memory._obj) == 24  # nvmlMemory_t: total, free, used
        ctypes.memmove(ctypes.addressof(memory._obj), (ctypes.c_ulonglong * 3)(80 << 30, 60 << 30, 20 << 30), 24)
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, rates: Any) -> int:
        if handle.value == 0x1001:
            return NOT_SUPPORTED
        assert ctypes.sizeof(rates._obj) == 8  # nvmlUtilization_t: gpu, memory
        ctypes.memmove(ctypes.addressof(rates._obj), (ctypes.c_uint * 2)(75, 30), 8)
        return 0


def test_memory_and_utilization_are_read() -> None:
    assert Nvml(Library()).devices() == [
        Device(0, "NVIDIA H4096", 20 << 30, 80 << 30, 0.75),
        Device(1, "NVIDIA H4097", 20 << 30, 80 << 30, None),
    ]


def test_a_gpu_that_is_lost_is_left_out() -> None:
    assert [device.index for device in Nvml(Library(lost=0)).devices()] == [1]


def test_where_the_driver_does_not_answer_there_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: Library(broken=9))
    assert DeviceMeter.find() is None
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: Library())
    assert DeviceMeter.find() is not None


def test_the_meter_reads_beside_the_server_and_a_driver_that_hangs_holds_up_nobody() -> None:
    hangs = threading.Event()
    readings: list[list[Device]] = [[Device(0, "H", 1, 2, 0.5)]]

    def read() -> list[Device]:
        if readings:
            return readings.pop()
        hangs.wait(10)
        return []

    meter = DeviceMeter(read, period_s=0.001, stale_s=0.2)
    assert meter.devices() == []
    meter.start()
    wait_until(lambda: [device.used_bytes for device in meter.devices()] == [1])
    wait_until(lambda: meter.devices() == [])  # it hangs; what it said once is no longer true
    meter.close()
    hangs.set()


def test_what_is_told_of_each_gpu() -> None:
    metrics = Metrics()
    metrics.watch_devices(Nvml(Library()).devices)
    told = [line for line in metrics.text().decode().splitlines() if line.startswith("tessera_device")]
    assert told == [
        'tessera_device_memory_used_bytes{device="0",name="NVIDIA H4096"} 2.147483648e+10',
        'tessera_device_memory_used_bytes{device="1",name="NVIDIA H4097"} 2.147483648e+10',
        'tessera_device_memory_bytes{device="0",name="NVIDIA H4096"} 8.589934592e+10',
        'tessera_device_memory_bytes{device="1",name="NVIDIA H4097"} 8.589934592e+10',
        'tessera_device_utilization_ratio{device="0",name="NVIDIA H4096"} 0.75',
    ]
