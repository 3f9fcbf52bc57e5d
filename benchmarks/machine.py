"""What the figures were measured on, for the files in `benchmarks/results/`: no host names, no paths.

Knows nothing of what was measured.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
_ASK = (
    "import json, sys\nfrom importlib.metadata import PackageNotFoundError, version\nfound = {}\n"
    "for name in sys.argv[1:]:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
    "print(json.dumps(found))"
)


def describe() -> dict[str, Any]:
    """Cores this process may use, processor and its features, memory in GB, GPU if there is one, Python, date."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": info.get("model name", platform.machine()),
        "features": [name for name in _FEATURES if name in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "gpu": _gpu(),
        "python": platform.python_version(),
    }


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions that an environment's interpreter has of `packages`; what is not installed is left out."""
    asked = subprocess.run([python, "-c", _ASK, *packages], capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(asked.stdout) if asked.returncode == 0 else {}
    return found


def rss_mb(pid: int) -> float:
    """Resident memory of a process and all below it, in MB; 0 when it is gone."""
    total = 0.0
    for each in (pid, *children(pid)):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(float(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
    return total


def cpu_s(pid: int) -> float:
    """Seconds of the processor that a process and all below it have used, with those that ended before."""
    ticks = 0
    for each in (pid, *children(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes below one, by its own account."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listed.read_text().split()]
        except OSError:
            continue
    return found + [deeper for child in found for deeper in children(child)]


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _gpu() -> str | None:
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
