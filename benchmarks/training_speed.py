"""48 photos to a bundle, from nothing: this checkout beside another one, in turns, with the clusters' scores.

    python -m benchmarks.training_speed --before ../before                 three seeds, PiCIE and STEGO
    python -m benchmarks.training_speed --before ../before --seeds 1 --only picie

48 frames of CamVid's training drives, drawn evenly, no hub, folder recipes as they stand in each checkout. Each run is
the command people type, in a process of its own; the two checkouts take turns. Bundles are scored on val by this
checkout: accuracy under one matching (Hungarian), and with every cluster as its commonest class. No label is read
before.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.compare import labeler, spread
from models.bundle import Bundle
from training.data import datasets
from training.data.images import evenly
from training.evaluation import metrics

FRAMES = 48
METHODS = ("picie", "stego")
HERE = Path(__file__).resolve().parent.parent


def frames(data: Path, folder: Path) -> Path:
    """A folder of links to the frames that are trained on."""
    found = datasets.open("camvid", data, split="train", console=Console(quiet=True))
    folder.mkdir(parents=True, exist_ok=True)
    for i in evenly(len(found), FRAMES):
        link = folder / found.paths[i].name
        if not link.exists():
            link.symlink_to(found.paths[i].resolve())
    return folder


def trained(checkout: Path, photos: Path, out: Path, method: str, seed: int, asked: Sequence[str]) -> dict[str, Any]:
    """One run of a checkout's command: seconds, seconds of processors, MB at most, seconds by stage."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "training/train.py", "--data", photos, "--out", out, "--method", method]
    for override in (f"seed={seed}", *asked):
        command += ["--set", override]
    quiet = os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    with (out.parent / f"{out.name}.log").open("w") as said:
        child = subprocess.Popen([str(part) for part in command], cwd=checkout, env=quiet, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{out.name} failed: see {said.name}")
    stages = json.loads((out / "bundle" / "report.json").read_text())["seconds"]
    processors = usage.ru_utime + usage.ru_stime
    wall = time.monotonic() - began
    return {"seconds": wall, "processors": processors, "peak_mb": usage.ru_maxrss / 1024, "stages": stages}


def scored(bundle: Path, data: Path, every: int) -> dict[str, float]:
    """Accuracies 0..1 on val, of every so-manieth frame: with one matching, and with each cluster's commonest class."""
    images, found = datasets.open("camvid", data, split="val", console=Console(quiet=True)), Bundle.load(bundle)
    label = labeler(found)
    table = np.zeros((len(found.manifest.clusters), len(images.class_names)), np.int64)
    for i in range(0, len(images), every):
        table += metrics.confusion(label(images[i]), images.labels(i), *table.shape)
    return {"one_to_one": metrics.score(table).accuracy, "many_to_one": float(table.max(1).sum() / table.sum())}


def table(found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: medians of seconds and MB, means ± deviations of scores; then the seconds of every stage."""
    lines = [
        "| | seconds | of processors | peak MB | one-to-one | many-to-one |",
        "|---|---|---|---|---|---|",
    ]
    for (method, side), runs in found.items():
        cells = [f"{statistics.median(run[name] for run in runs):.0f}" for name in ("seconds", "processors", "peak_mb")]
        cells += [spread([run[name] for run in runs]) for name in ("one_to_one", "many_to_one")]
        lines.append(f"| {method}, {side} | {' | '.join(cells)} |")
    lines.append("")
    for method in {method: None for method, _ in found}:
        before, after = ([run["seconds"] for run in found[method, side]] for side in ("before", "now"))
        lines.append(f"{method}: {statistics.median(after) / statistics.median(before):.2f} of the time before")
    for (method, side), runs in found.items():
        stages = {name: statistics.median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
        lines.append(f"{method}, {side}: {', '.join(f'{name} {seconds:.1f}' for name, seconds in stages.items())}")
    return "\n".join(lines)


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout, its kernels built")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--out", type=Path, default=Path("runs/training-speed"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--every", type=int, default=1, help="of val's frames, the one that is scored")
    parser.add_argument("--set", dest="asked", action="append", default=[], help="for both, as training takes it")
    given = parser.parse_args()
    out = given.out.resolve()
    photos = frames(given.data, out / "frames")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {
        (method, side): [] for method in given.only for side in ("before", "now")
    }
    for seed in range(given.seeds):
        for method, side in found:
            checkout = given.before.resolve() if side == "before" else HERE
            home = out / f"{method}-{side}-{seed}"
            run = trained(checkout, photos, home, method, seed, given.asked)
            run |= scored(home / "bundle", given.data, given.every)
            found[method, side].append(run)
            print(
                f"{home.name}: {run['seconds']:.0f} s, {run['one_to_one']:.3f} / {run['many_to_one']:.3f}", flush=True
            )
    print(table(found))


if __name__ == "__main__":
    main()
