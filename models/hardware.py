"""What this machine has: cores, processor, memory to give back.

Knows nothing of networks.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSOR = Path("/proc/cpuinfo")
_MAPS = Path("/proc/self/maps")
_DONTNEED = 4  # MADV_DONTNEED


def cores() -> int:
    """Processors this process may use: its affinity, cut by the container's CPU quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max": no quota
        quota, period = _QUOTA.read_text().split()
        allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(1, allowed)


def restricted() -> bool:
    """Whether this process may use fewer processors than the machine has."""
    return cores() < (os.cpu_count() or 1)


def processor() -> str:
    """The processor's model name, with the vector instructions that decide which engine is fastest."""
    vectors = sorted(flags() & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "asimd"})
    name = _field("model name") or platform.processor() or platform.machine()
    return " ".join([name, *vectors])


def flags() -> frozenset[str]:
    """The processor's features, as Linux names them; empty elsewhere."""
    return frozenset((_field("flags") or _field("Features")).split())


def processor_details() -> str:
    """The processor's model and features, as Linux names them: they decide what it is given to run."""
    try:
        lines = _PROCESSOR.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("model", "flags", "Features", "CPU ")))


def trim() -> None:
    """Gives freed memory back to the system, where the C library can (glibc)."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_memory() -> None:
    """Gives what is free back to the system at once, where the C library can (glibc)."""
    with suppress(AttributeError, OSError, TypeError):  # another system's library
        ctypes.CDLL(None).malloc_trim(0)


def drop_mapped(folder: str) -> None:
    """Frees what is in memory of files mapped from a folder; whoever reads them again has them read again (Linux)."""
    with suppress(AttributeError, OSError, TypeError, ValueError):
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for line in _MAPS.read_text().splitlines():
            addresses, rights = line.split()[:2]
            if f"{folder}/" in line and "w" not in rights:
                start, end = (int(address, 16) for address in addresses.split("-"))
                advise(start, end - start, _DONTNEED)


def _field(name: str) -> str:
    with suppress(OSError):
        for line in _PROCESSOR.read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
