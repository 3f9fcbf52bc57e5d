"""What a server makes and holds at a few settings: the table of docs/operations.md.

    python -m benchmarks.sizing [--network NAME=BUNDLE …] [--secs 8]

Each row is a server of its own on loopback, asked by `tessera bench` on the same cores with eight requests at once; its
memory is the most it held, seen ten times a second, with what it held before the first request. `core_ms`, the
processor's time for one image, is what another load on the machine changes least. Written to
benchmarks/results/sizing.json. Rows say what they were: no figure is carried over to another machine.

Knows nothing of how a server works.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import machine
from benchmarks.own_server import serving
from service.settings import embedded
from training.data.synthetic import street

RESULTS = Path(__file__).parent / "results" / "sizing.json"
PORT = 8204
_CLIENTS, _WARM = 8, 16
_LARGE = (3000, 4000)


@dataclass(frozen=True)
class Row:
    """One setting. `options` go into every request, `cores` is how many the server may use."""

    network: str
    what: str
    options: tuple[str, ...] = ()
    size: str = "480x360"
    cores: int = 2


def rows(networks: list[str]) -> list[Row]:
    """Everything for the embedded default, less for the others."""
    first, *others = networks
    return [
        Row(first, "480×360"),
        Row(first, "480×360, one core", cores=1),
        Row(first, "480×360, crf=fast", ("crf=fast",)),
        Row(first, "480×360, crf=true", ("crf=true",)),
        Row(first, "4000×3000", size="large"),
        *(Row(other, "480×360") for other in others),
        *(Row(other, "480×360, crf=true", ("crf=true",)) for other in others),
    ]


class Watch:
    """The most memory a process and its children hold while this is entered, in MB."""

    def __init__(self, pid: int) -> None:
        self._pid, self._over = pid, threading.Event()
        self.most_mb = 0.0

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most_mb = max(self.most_mb, machine.rss_mb(self._pid))


def measure(row: Row, bundle: Path, work: Path, large: Path, secs: float) -> dict[str, Any]:
    """A server of its own for the row, warm, then asked for so many seconds."""
    images = ["--images", str(large)] if row.size == "large" else ["--size", row.size]
    options = [word for option in row.options for word in ("--option", option)]
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: row.cores])  # the server's, which it inherits
    try:
        server = serving(
            bundle, work / "log", port=PORT,
            env={"TESSERA_STATE": str(work / "state"), "TESSERA_ACCESS_LOG": "false"},
        )  # fmt: skip
        with server as running:
            os.sched_setaffinity(0, allowed)
            before_mb, cpu_before_s = machine.rss_mb(running.pid), _cpu_s(running.pid)
            began = time.monotonic()
            with Watch(running.pid) as watch:
                said = subprocess.run(
                    [sys.executable, "-P", "-c", "from tessera.cli import main; main()", "bench",
                     "--url", f"http://127.0.0.1:{PORT}", "--seconds", str(secs), "--concurrency", str(_CLIENTS),
                     "--warmup", str(_WARM),
                     "--json", *images, *options],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
            wall_s, cpu_s = time.monotonic() - began, _cpu_s(running.pid) - cpu_before_s
            found = json.loads(said.stdout)
            return {
                "network": row.network,
                "what": row.what,
                "cores": row.cores,
                "images_per_s": found["images_per_s"],
                "latency_ms": {name: found["latency_ms"][name] for name in ("p50", "p99")},
                "errors": found["errors"],
                "answers": found["answers"],
                "idle_mb": round(before_mb),
                "most_mb": round(watch.most_mb),
                "core_ms": round(1000 * cpu_s / (found["answers"] + _WARM), 1),
                "cores_used": round(cpu_s / wall_s, 2),
                "start_s": round(running.start_s, 2),
            }
    finally:
        os.sched_setaffinity(0, allowed)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", default=[], metavar="NAME=BUNDLE", help="beside the default")
    parser.add_argument("--secs", type=float, default=8.0, help="of asking for each row (default: %(default)g)")
    given = parser.parse_args()
    bundles = {"embedded default": embedded()[0]}
    bundles |= {name: Path(folder) for name, _, folder in (text.partition("=") for text in given.network)}
    measured = []
    with tempfile.TemporaryDirectory(prefix="sizing.") as name:
        work = Path(name)
        large = work / "large.jpg"
        picture = np.asarray(Image.fromarray(street()).resize(_LARGE[::-1], Image.Resampling.BICUBIC))
        Image.fromarray(picture).save(large, quality=90)
        for number, row in enumerate(rows(list(bundles))):
            folder = work / str(number)
            folder.mkdir()
            found = measure(row, bundles[row.network], folder, large, given.secs)
            measured.append(found)
            ms = found["latency_ms"]
            told = [
                f"{row.network}, {row.what}",
                f"{found['images_per_s']:.1f}",
                f"{ms['p50']:.0f}, {ms['p99']:.0f}",
                f"{found['core_ms']:.0f}",
                f"{found['idle_mb']}, {found['most_mb']}",
            ]
            print(f"| {' | '.join(told)} |", flush=True)
    RESULTS.write_text(
        json.dumps({"what": "python -m benchmarks.sizing", "machine": machine.describe(), "rows": measured}, indent=1)
        + "\n"
    )
    return int(any(row["errors"] for row in measured))


if __name__ == "__main__":
    sys.exit(main())
