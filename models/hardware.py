"""What this machine has, and what of it this process may use: cores, processor, memory to give back.

Knows nothing of networks.
"""

import ctypes
import gc
import math
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_HIERARCHY = Path("/sys/fs/cgroup")
_PROCESSOR = Path("/proc/cpuinfo")
_MAPS = Path("/proc/self/maps")
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_MEMORY = Path("/proc/meminfo")
_DONTNEED = 4  # MADV_DONTNEED
_share = math.inf


def cores() -> int:
    """Processors this process may use: its affinity, cut by the quota of its control group and of those around it, and
    by its share."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, _share, *map(_quota, _control_groups("cpu"))])))


def share_cores(count: float) -> None:
    """From now on this process takes so many processors at most: it has neighbors, and the system holds nobody back."""
    global _share
    _share = count


def share(total: int, number: int, of: int) -> int:
    """A number's part, counted from 1, of a total that so many share: one at least; what is left is of the first."""
    return max(1, total // of + (number <= total % of))


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of those this process's time, or memory, is counted in, from its own outwards, versions 1 and 2."""
    for line in _text(_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = _HIERARCHY / controller if controllers else _HIERARCHY
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            yield group
            if group == top:  # a container often has its own mounted there, whatever its path is outside
                break


def _quota(group: Path) -> float:
    """Processors' worth of time that a control group may use; infinite where it does not say."""
    said = _text(group / "cpu.max").split() or [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    with suppress(ValueError, ZeroDivisionError):  # "max", or no such file
        quota, period = map(int, said)
        return quota / period if quota > 0 else math.inf
    return math.inf


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
    """The first processor's model and features, a line each as Linux lists them: what compiled code may depend on."""
    if not (text := _text(_PROCESSOR)):
        return f"{platform.machine()} {platform.processor()}"
    lines = text.partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model", "flags", "Features", "CPU ")))


def reset_peak() -> None:
    """`peak_bytes` counts from now on, where the system can (Linux)."""
    with suppress(OSError):
        _RESET.write_text("5")


def peak_bytes() -> int:
    """The most memory this process has held since the last reset, or ever where there is none."""
    for line in _text(_STATUS).splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


def available_bytes() -> int | None:
    """Memory that this machine, and every control group around this process, still has; None: nobody says."""
    found = [int(line.split()[1]) * 1024 for line in _text(_MEMORY).splitlines() if line.startswith("MemAvailable")]
    for group in _control_groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(ValueError):  # "max", or no such file
                found.append(int(_text(group / limit)) - int(_text(group / used)))
    return max(0, min(found)) if found else None


def trim() -> None:
    """Gives what Python no longer uses back to the system, where the C library can (glibc)."""
    gc.collect()
    release_memory()


def release_memory() -> None:
    """Gives freed memory back to the system, where the C library can (glibc), 1 ms; Python's own garbage stays."""
    with suppress(AttributeError, OSError, TypeError):
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
    for line in _text(_PROCESSOR).splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _text(path: Path) -> str:
    """What a file of the system says; nothing where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
