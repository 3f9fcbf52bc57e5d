"""What margins cost: the compiled kernel against numpy, on the patch grid, as for every answer, and at full size.

    python -m benchmarks.margins [--size 3000,4000] [--rounds 5]

Codes and centroids are drawn, on a grid of 60×80 with D 72: noise, so that nearly every cluster can win in every cell,
which no trained network's scores are. One thread; milliseconds of the processor, the best of so many rounds, and how
many of the values, of margins and ids, differ.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models import assign

GRID, D = (60, 80), 72
ON_GRID, AT_FULL_SIZE = (11, 27, 255), (11, 27)


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3000,4000", metavar="H,W")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    height, width = map(int, given.size.split(","))
    table = Table(title="milliseconds of one thread")
    for column in ("places", "K", "margins", "numpy", "margins and ids", "numpy", "values that differ"):
        table.add_column(column, justify="right")
    rng = np.random.default_rng(0)
    code = rng.normal(size=(D, *GRID)).astype(np.float32)
    for size, k in [*((GRID, k) for k in ON_GRID), *(((height, width), k) for k in AT_FULL_SIZE)]:
        centroids = rng.normal(size=(k, D)).astype(np.float32)
        scores = np.tensordot(centroids / np.linalg.norm(centroids, axis=1, keepdims=True), code, 1)
        ways: list[Callable[..., Any]] = [assign.margin, assign.plain_margin, assign.ranked, assign.plain_ranked]
        rounds = given.rounds if size == GRID else min(given.rounds, 3)
        spent = [f"{_least_ms(way, rounds, scores, code, size):.2f}" for way in ways]
        ours, numpys = assign.ranked(scores, code, size), assign.plain_ranked(scores, code, size)
        differ = sum(int((a != b).sum()) for a, b in zip(ours, numpys, strict=True))
        table.add_row(f"{size[1]}×{size[0]}", str(k), *spent, str(differ))
    Console().print(table)


def _least_ms(way: Callable[..., Any], rounds: int, *given: Any) -> float:
    spent = []
    for _ in range(rounds + 1):  # the first one warms up
        began = time.thread_time()
        way(*given)
        spent.append((time.thread_time() - began) * 1000)
    return min(spent[1:])


if __name__ == "__main__":
    main()
