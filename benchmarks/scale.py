"""What training costs by the number of images: seconds and memory of every stage, at several sizes of a drawn folder.

    python -m benchmarks.scale 25000 50000 100000 [--side 96] [--steps 20] [--folder /tmp/scale]

For each size so many JPEGs are drawn (kept in --folder, taken again by the next size), and `training/train.py` trains
STEGO on them in a process of its own, with the smallest CNN of timm, of random weights, and few steps. Told
are the seconds of every stage, how they grow (the power of N between two sizes: 1 is linear), and the most memory that
the process ever took: without what it has of files mapped, which a machine takes back at will, and with it.

Knows nothing of how it is trained.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import machine

_ROOT = Path(__file__).resolve().parents[1]
_PER_FOLDER = 1000
_SECONDS_BETWEEN_LOOKS = 0.2


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+", help="numbers of images")
    parser.add_argument("--side", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/scale"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=v", help="further values of the recipe")
    given = parser.parse_args()
    print(json.dumps(machine.describe()), flush=True)
    before: tuple[int, dict[str, float]] | None = None
    for size in sorted(given.sizes):
        photos = given.folder / f"{size}"
        drawn_s = _seconds(partial(draw, photos, size, given.side))
        found = train(photos, given.folder / "run", given.steps, given.set)
        print(f"\n{size} images of {given.side}²: drawn in {drawn_s:.0f} s", flush=True)
        for stage, seconds in found.items():
            print(f"  {stage:22} {seconds:9.1f}{_power(stage, seconds, size, before)}", flush=True)
        before = size, found
        shutil.rmtree(given.folder / "run")


def _power(stage: str, seconds: float, size: int, before: tuple[int, dict[str, float]] | None) -> str:
    if before is None or "GB" in stage or min(seconds, before[1].get(stage, 0)) < 1:
        return ""
    return f"   N^{math.log(seconds / before[1][stage]) / math.log(size / before[0]):.2f}"


def draw(folder: Path, count: int, side: int) -> None:
    """`count` images below the folder, a thousand to each of its own; those that are there are kept."""
    parts = range(0, count, _PER_FOLDER)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_draw_some, folder, side), parts, [min(count, p + _PER_FOLDER) for p in parts]))


def _draw_some(folder: Path, side: int, first: int, stop: int) -> None:
    below = folder / f"{first // _PER_FOLDER:04d}"
    below.mkdir(parents=True, exist_ok=True)
    rows = np.arange(side)[:, None, None]
    for i in range(first, stop):
        path = below / f"{i}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(i)
        sky, ground, spot = rng.integers(0, 256, (3, 3))
        image = np.where(rows < rng.integers(side // 4, 3 * side // 4), sky, ground) * np.ones((side, side, 1))
        top, left = rng.integers(0, side * 2 // 3, 2)
        image[top : top + side // 3, left : left + side // 3] = spot
        image += rng.normal(0, 8, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def train(photos: Path, out: Path, steps: int, more: list[str]) -> dict[str, float]:
    """Seconds of every stage of one training, in all, and the most memory in GB."""
    shutil.rmtree(out, ignore_errors=True)
    values = [
        "backbone.name=test_resnet", "backbone.weights=random", "input.train_size=96", "input.size=96",
        f"stego.steps={steps}", "export.exemplars=2", *more,
    ]  # fmt: skip
    command = [sys.executable, "training/train.py", "--device", "cpu", "--data", photos, "--out", out]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, *(f"--set={v}" for v in values)], cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        own, mapped = _watch(process)
    if process.returncode:
        raise SystemExit(f"the training ended with {process.returncode}: run it by hand to see why")
    whole = time.monotonic() - began
    seconds: dict[str, float] = json.loads((out / "bundle" / "report.json").read_text())["seconds"]
    return {
        "opening": whole - sum(seconds.values()),
        **seconds,
        "all": whole,
        "GB, its own": own,
        "GB, with mapped files": mapped,
    }


def _watch(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """The most memory, in GB, that a process and those below it took: their own, and with mapped files."""
    most = {"RssAnon": 0.0, "VmRSS": 0.0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            now = dict.fromkeys(most, 0.0)
            for pid in (process.pid, *machine.children(process.pid)):
                try:
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                except OSError:
                    continue
                for name in now:
                    now[name] += sum(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1e6
            for name, value in now.items():
                most[name] = max(most[name], value)

    looking = threading.Thread(target=look)
    looking.start()
    process.wait()
    ended.set()
    looking.join()
    return most["RssAnon"], most["VmRSS"]


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
