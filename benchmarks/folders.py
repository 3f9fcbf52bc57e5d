"""What a folder of very many images costs before anything is learned: seconds of CPU and memory.

    python -m benchmarks.folders 1000000

The files are links to a few tiny ones, a thousand in a folder, below a temporary folder, and are removed. What is
remembered of them is written without opening them: listing, and checking what is known, are what is measured.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image
from rich.console import Console

from training.data import datasets
from training.data.check import key_of
from training.data.datasets.folder import find_all
from training.data.image_index import ImageIndex, Looked, Stamp
from training.data.images import Found

PER_FOLDER, PER_FILE = 1000, 50_000  # links; a file system bounds those of one file

T = TypeVar("T")


def fill(root: Path, count: int) -> None:
    """So many images below `root`."""
    seed = Path()
    for i in range(count):
        folder = root / f"drive_{i // PER_FOLDER:05}"
        if i % PER_FOLDER == 0:
            folder.mkdir()
        if i % PER_FILE == 0:
            seed = root / f".{i}.png"  # hidden: not one of them
            Image.new("RGB", (16, 16), (i // PER_FILE, 2, 3)).save(seed)
        os.link(seed, folder / f"frame_{i:07}.png")


def remember(found: Found, index: Path) -> None:
    """An index that knows all of them as readable."""
    with ImageIndex(index, key_of(found)) as memory:
        for path in found.paths:
            facts = path.stat()
            memory.remember([(str(path), Stamp(facts.st_size, facts.st_mtime_ns), Looked(None))])


def timed(what: str, work: Callable[[], T]) -> T:
    """Prints what the work took, and the largest memory so far."""
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    took, used = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:34} {took:7.1f} s, of CPU {used:6.1f} s   {peak:.2f} GB", flush=True)
    return result


def main() -> None:
    """Measures one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="images")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as place:
        root, index = Path(place, "images"), Path(place, "images.sqlite3")
        root.mkdir()
        fill(root, count)
        found = timed("listing, looking for label maps", lambda: find_all([root]))
        timed("remembering them, unopened", lambda: remember(found, index))
        quiet = Console(quiet=True)
        images = timed(
            "listing and checking the known", lambda: datasets.open("folder", root, console=quiet, index=index)
        )
        timed("digest", lambda: images.digest)
        print(f"{len(images)} images, {index.stat().st_size / 1e6:.0f} MB of index")


if __name__ == "__main__":
    main()
