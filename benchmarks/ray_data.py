"""`tessera segment --engine ray` beside `tessera segment`: the same files, the same bundle, as many workers, in turns.

    python -m benchmarks.ray_data [BUNDLE | --tiny] [--images 900] [--rounds 3] [--workers 2]

Every round each of the two writes label maps of all files; who begins changes with the round. The pace is that of the
command's last line, from the first engine that stands ready to the last image; the whole is the wall time of the
command with its start. The label maps of both are equal, or the run counts for nothing. Results go to
benchmarks/results/ray-data-NAME.json, beside what earlier runs of the same bundle left there (--fresh: alone).

Knows nothing of how an answer is made.
"""

import argparse
import filecmp
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.offline import photos
from benchmarks.own_server import command
from service.settings import embedded
from tests.tiny import write_tiny_bundle

RESULTS = Path(__file__).parent / "results"
_ENGINES = ("local", "ray")
_PACKAGES = ("tessera-segmentation", "onnxruntime", "ray", "numpy", "pillow")


def written(bundle: Path, folder: Path, out: Path, engine: str, workers: int) -> dict[str, float]:
    """The command's own images/s, and its wall time in seconds."""
    line = [command(), "segment", folder, "--out", out, "--bundle", bundle, "--engine", engine, "--workers", workers]
    began = time.monotonic()
    done = subprocess.run(
        [str(word) for word in line],
        env={**os.environ, "TESSERA_CACHE_BYTES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.monotonic() - began
    pace = re.search(r"([0-9.e+]+) images/s; they are in", done.stderr)
    if done.returncode or pace is None:
        sys.exit(f"the command ended with {done.returncode}: {done.stderr[-500:]}")
    return {"images_per_s": float(pace[1]), "wall_s": round(wall_s, 2)}


def ratios(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Ray's pace in local ones, and its whole run's: median, least and most of the rounds."""
    of = {
        "pace": [one["ray"]["images_per_s"] / one["local"]["images_per_s"] for one in rounds],
        "whole": [one["local"]["wall_s"] / one["ray"]["wall_s"] for one in rounds],
    }
    return {
        name: {"median": round(statistics.median(all_), 3), "min": round(min(all_), 3), "max": round(max(all_), 3)}
        for name, all_ in of.items()
    }


@contextmanager
def _bundle(given: Path, *, tiny: bool) -> Iterator[tuple[str, Path]]:
    """What the results are called, and the bundle's folder."""
    if not tiny:
        yield ("default" if given == embedded()[0] else given.name), given
        return
    with tempfile.TemporaryDirectory() as made:
        yield "tiny", write_tiny_bundle(Path(made) / "tiny").path


def main() -> None:
    """Prints a line a round, and the medians. Exit code 1 where label maps differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=embedded()[0])
    parser.add_argument("--tiny", action="store_true", help="a network that costs nothing")
    parser.add_argument("--images", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="leave out what earlier runs measured")
    parser.add_argument("--warmed", action="store_true", help="what is proved or compiled once on a machine is so here")
    given = parser.parse_args()
    with _bundle(given.bundle, tiny=given.tiny) as (name, bundle), tempfile.TemporaryDirectory() as made:
        file = RESULTS / f"ray-data-{name}.json"
        before = json.loads(file.read_text()) if file.exists() and not given.fresh else {}
        same = (before.get("images"), before.get("workers")) == (given.images, given.workers)
        rounds: list[dict[str, Any]] = before["rounds"] if same else []
        folder = Path(made) / "photos"
        folder.mkdir()
        paths = photos(folder, given.images)
        for engine in () if rounds or given.warmed else _ENGINES:
            written(bundle, folder / paths[0].name, Path(made) / f"warm-{engine}", engine, given.workers)
        for _ in range(given.rounds):
            turn = len(rounds)
            order = _ENGINES if turn % 2 else _ENGINES[::-1]
            outs = {engine: Path(made) / f"{engine}{turn}" for engine in order}
            rounds.append({one: written(bundle, folder, outs[one], one, given.workers) for one in order})
            names = [f"{path.stem}.png" for path in paths]
            if filecmp.cmpfiles(outs["local"], outs["ray"], names, shallow=False)[0] != names:
                sys.exit("the label maps of the two are not equal: this counts for nothing")
            print(turn + 1, rounds[-1], flush=True)
            document = {
                "what": "python -m benchmarks.ray_data",
                "bundle": name,
                "images": given.images,
                "workers": given.workers,
                "machine": machine.describe(),
                "versions": machine.versions(Path(sys.executable), _PACKAGES),
                "ray_in_local": ratios(rounds),
                "rounds": rounds,
            }
            file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(ratios(rounds))


if __name__ == "__main__":
    main()
