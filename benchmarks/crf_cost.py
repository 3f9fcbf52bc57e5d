"""What a CRF costs besides time: memory of one image, and how long an event loop waits while others are refined."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from models.crf import dense
from models.types import Array

# In a process of its own: the largest resident size, less what it was before the image's probabilities were made.
_ALONE = """
import sys
from pathlib import Path
import numpy as np
from benchmarks.crf_cost import noise, resident
from models.crf import dense
from models.crf.cpu.stencil import smoothing_taps
from models.crf.cpu.warmup import warm
from models.io.decode import load
from models.preprocess import resize
from models.types import Array
kind, path, labels, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
photo = noise(size) if kind == "noise" else resize(load(Path(path)).image, (size, size))
warm()
smoothing_taps(size, size, 1.0)  # kept for every image of this size
given = []
def make():
    rows = np.random.default_rng(0).random((labels, size, size), dtype=np.float32)
    rows /= rows.sum(axis=0)
    given.append(rows)
before = resident("VmRSS")
make()
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
dense.refine(given.pop(), photo)
print(resident("VmHWM") - before)
"""


def noise(size: int) -> np.ndarray:
    """A picture of which no two pixels are alike: the CRF's worst case."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


def resident(what: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def memory(kind: str, photo: Path, labels: int, size: int) -> float:
    """MiB that one image takes at most, its probabilities included; Linux only."""
    command = [sys.executable, "-c", _ALONE, kind, str(photo), str(labels), str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def stall(
    labels: int,
    size: int,
    *,
    refining: bool = True,
    images: int = 8,
    threads: int = 2,
    refine: Callable[[Array, Array], Any] = dense.refine,
) -> float:
    """The longest milliseconds between two turns of an event loop that asks for one each, while images are refined."""
    rng = np.random.default_rng(0)
    photo = np.repeat(np.repeat(rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8), 8, axis=0), 8, axis=1)
    height, width = photo.shape[:2]
    given = rng.random((labels, height, width), dtype=np.float32)
    given /= given.sum(axis=0)
    refine(given, photo)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(threads) as pool:
            jobs = [loop.run_in_executor(pool, refine, given, photo) for _ in range(images)] if refining else []
            longest, last, until = 0.0, time.perf_counter(), time.perf_counter() + 0.5
            while not all(job.done() for job in jobs) or (not refining and time.perf_counter() < until):
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
            await asyncio.gather(*jobs)
        return longest * 1000

    return asyncio.run(run())


def vectors() -> str:
    """AVX-512, AVX2, … : what the compiled loops may use here."""
    from llvmlite import binding  # type: ignore[import-untyped]

    has = binding.get_host_cpu_features()
    names = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4.2": "SSE4.2", "neon": "NEON"}
    return next((name for feature, name in names.items() if has.get(feature)), "those of the architecture's base")
