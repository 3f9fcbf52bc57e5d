"""Every method on the same work: trained on drives of CamVid's streets, scored on one that none has seen.

    make compare                                     everything, three seeds: about two hours on two cores
    python -m benchmarks.compare --only stego --seeds 1

All start from one backbone (`training/pretrain.py`, on the same frames) or from nothing, with eleven clusters; the
embedded default's recipe goes the whole way for every seed. No label is read before a row is finished. Scores are
Hungarian, per split, pixels of unmatched clusters are errors, on label maps at the frame's own size. Every (row, seed)
is a process of its own on one core, as many at a time as there are cores: seconds and peak memory are its. What is
finished is kept in --out and not done again. The table goes to docs/comparison.md, between the two marks.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks import baselines
from models.bundle import Bundle
from models.inference import segment
from training import methods
from training.config import recipe
from training.config.run import Run
from training.data import datasets
from training.data.images import Images
from training.data.regions import open_regions
from training.evaluation import metrics
from training.evaluation.exported import Exported
from training.pipeline import train
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import pretrain
from training.trainer.loop import Workspace

K = 11
HELD_OUT = "0006R0"
SPLITS = {"unseen": f"train/{HELD_OUT}", "val": "val"}  # a drive nobody trained on; other frames of a drive of the fold
FOLD = f"train/-{HELD_OUT}"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "comparison.md"
MARKS = ("<!-- table -->", "<!-- end of table -->")
RECIPES = Path(recipe.__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Row:
    """One line of the table: a baseline, or a method with what its recipe says.

    page       the recipe it begins with
    overrides  as `--set` takes them
    scratch    begins with nothing, not with the common backbone
    own        pretrains a backbone of its own, by its seed: the whole way, three times over
    """

    title: str
    baseline: Callable[[Iterable[np.ndarray], int, int, Path], baselines.Labeler] | None = None
    page: Path | None = None
    overrides: tuple[str, ...] = ()
    scratch: bool = False
    own: bool = False


def rows() -> dict[str, Row]:
    """Every line, in the table's order. Clusters are a method's, or k-means of its code; the last row's, joined."""
    own = ("clusters.merge=false", "input.size=240")
    frozen = (*own, "input.train_size=224")
    views = (*own, "input.train_size=128", "picie.epochs=3")
    return {
        "pixels": Row("k-means of pixels: color, place", lambda i, k, s, _: baselines.pixels(i, k, s), scratch=True),
        "regions": Row(
            "k-means of regions: color, spread, place", lambda i, k, s, _: baselines.regions(i, k, s), scratch=True
        ),
        "untrained": Row(
            "k-means of an untrained ResNet-10's features",
            lambda i, k, s, _: baselines.features(i, k, s, name="resnet10t", weights="random"),
            scratch=True,
        ),
        "features": Row(
            "k-means of the common backbone's features",
            lambda i, k, s, file: baselines.features(i, k, s, name="resnet10t", weights=file),
        ),
        "stego": Row("STEGO", page=RECIPES / "folder-stego.toml", overrides=(*frozen, "stego.steps=400")),
        "cause-mlp": Row("CAUSE-MLP", page=RECIPES / "folder-cause.toml", overrides=frozen),
        "cause-tr": Row(
            "CAUSE-TR",
            page=RECIPES / "folder-cause.toml",
            overrides=(*own, "input.train_size=160", "cause.head=tr"),
        ),
        "primaps": Row("PriMaPs-EM", page=RECIPES / "folder-primaps.toml", overrides=frozen),
        "smooseg": Row("SmooSeg", page=RECIPES / "folder-smooseg.toml", overrides=frozen),
        "picie": Row("PiCIE", page=RECIPES / "folder-picie.toml", overrides=views),
        "picie-h": Row("PiCIE+H", page=RECIPES / "folder-picie.toml", overrides=(*views, "picie.overcluster=100")),
        "mdc": Row("MDC", page=RECIPES / "folder-picie.toml", overrides=(*views, "picie.views=1")),
        "deepcluster": Row(
            "DeepCluster on regions",
            page=RECIPES / "folder-deepcluster.toml",
            overrides=(*frozen, "clusters.distill_steps=0"),
        ),
        "san": Row(
            "SAN, our construction, from scratch",
            page=RECIPES / "folder-san.toml",
            overrides=("clusters.merge=false",),
            scratch=True,
        ),
        "iic": Row(
            "IIC, our construction, from scratch",
            page=RECIPES / "folder-iic.toml",
            overrides=("backbone.name=vgg11_bn",),
            scratch=True,
        ),
        "embedded": Row(
            "DeepCluster, pieces joined: the embedded default's, pretraining and all",
            page=RECIPES / "embedded.toml",
            own=True,
        ),
    }


def pretrained(data: Path, folder: Path, console: Console, seed: int = 0) -> Path:
    """A backbone trained without labels on the frames of the fold; the common one is that of seed 0."""
    file = folder / ("backbone.safetensors" if seed == 0 else f"backbone-{seed}.safetensors")
    if not file.exists():
        options = PretrainOptions(steps=1000, seed=seed)  # as the embedded default
        images = datasets.open("camvid", data, split=FOLD, console=console)
        regions = open_regions(images.paths, options.regions, folder / "cache", console, read=images.read)
        partial, log = file.with_suffix(".partial"), file.with_suffix(".log.jsonl")
        pretrain(regions, options, torch.device("cpu"), Workspace(partial, log, 0, console, "make compare"), file)
    return file


def one(name: str, seed: int, data: Path, folder: Path) -> dict[str, Any]:
    """Fits or trains one row and scores it: seconds to train, and (mIoU, accuracy) by split."""
    row, console = rows()[name], Console(stderr=True)
    images = datasets.open("camvid", data, split=FOLD, console=console)
    weights = pretrained(data, folder, console, seed if row.own else 0) if not row.scratch else "random"
    began = time.monotonic()
    if row.baseline is not None:
        label = row.baseline(images, K, seed, folder / "backbone.safetensors")
    else:
        settled = recipe.parse(
            recipe.read(row.page) if row.page else {},
            config_of=methods.config,
            overrides=[
                f"seed={seed}",
                f"clusters.k={K}",
                "dataset=camvid",
                f"split={FOLD}",
                "backbone.name=resnet10t",
                f"backbone.weights={weights}",
                "export.exemplars=0",
                *row.overrides,
            ],
        )
        home = folder / f"{name}-{seed}"
        shutil.rmtree(home, ignore_errors=True)  # of a run that was killed: going on would be no measure of seconds
        (home / "cache").mkdir(parents=True)
        # Regions are cut once, for the pretraining; two minutes each time else.
        (home / "cache" / "regions").symlink_to((folder / "cache").resolve())
        label = labeler(train(Run(settled, images, home, torch.device("cpu"), console)))
    seconds = time.monotonic() - began
    scores = {
        split: score(label, datasets.open("camvid", data, split=at, console=console)) for split, at in SPLITS.items()
    }
    return {"row": name, "seed": seed, "seconds": seconds, **scores}


def labeler(bundle: Bundle) -> baselines.Labeler:
    """A bundle as a function from an image to its label map."""
    encode = Exported((bundle.path / "encoder.onnx").read_bytes())
    return lambda image: segment(bundle, encode, image)


def score(label: baselines.Labeler, images: Images) -> tuple[float, float]:
    """(mIoU, accuracy), each 0..1, of all frames together."""
    table = np.zeros((K, len(images.class_names)), np.int64)
    for i in range(len(images)):
        table += metrics.confusion(label(images[i]), images.labels(i), *table.shape)
    found = metrics.score(table)
    return found.miou, found.accuracy


def measured(name: str, seed: int, data: Path, folder: Path) -> dict[str, Any]:
    """`one` in a process of its own, with its peak memory; from disk where it was done before."""
    kept = folder / f"{name}-{seed}.json"
    if not kept.exists():
        print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
        command = [
            sys.executable,
            "-m",
            "benchmarks.compare",
            "--data",
            data,
            "--out",
            folder,
            "--one",
            f"{name},{seed}",
        ]
        one_core = os.environ | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=one_core)
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{name}, seed {seed} failed: its messages are above")
        found = json.loads(said.splitlines()[-1]) | {"peak_mb": usage.ru_maxrss / 1024}
        kept.write_text(json.dumps(found))
    answer: dict[str, Any] = json.loads(kept.read_text())
    return answer


def table(found: dict[str, list[dict[str, Any]]], seeds: int) -> str:
    """Markdown: mean ± standard deviation over the seeds, fractions; seconds and MB are medians."""
    lines = [
        f"Trained on `{FOLD}`, K = {K}, {seeds} seeds, {os.cpu_count()} cores ({platform.machine()}),"
        f" torch {torch.__version__}.",
        "",
        "| | unseen drive mIoU | accuracy | val mIoU | accuracy | seconds | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        cells = [spread([run[split][i] for run in runs]) for split in SPLITS for i in (0, 1)]
        seconds = statistics.median(run["seconds"] for run in runs)
        peak = statistics.median(run["peak_mb"] for run in runs)
        lines.append(f"| {rows()[name].title} | {' | '.join(cells)} | {seconds:.0f} | {peak:.0f} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """ ".214 ± .010"."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}".replace("0.", ".")


def write(text: str) -> None:
    """The table into its page; rows that it has not keep their lines."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(MARKS[0])
    before, tail = rest.split(MARKS[1], 1)
    PAGE.write_text(f"{head}{MARKS[0]}\n{merged(before, text)}\n{MARKS[1]}{tail}", encoding="utf-8")


def merged(before: str, text: str) -> str:
    """A table with the lines of an earlier one for the rows that it lacks, in the order of `rows`."""
    lines = {line.split("|")[1].strip(): line for part in (before, text) for line in part.splitlines() if "|" in line}
    known = [row.title for row in rows().values()]
    top = [line for line in text.splitlines() if line.split("|")[1:2] == [] or line.split("|")[1].strip() not in known]
    return "\n".join([*top, *(lines[title] for title in known if title in lines)])


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(rows()), default=list(rows()))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.one:
        name, seed = given.one.split(",")
        print(json.dumps(one(name, int(seed), given.data, given.out)))
        return
    if not all(rows()[name].scratch for name in given.only):
        pretrained(given.data, given.out, Console(stderr=True))
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        jobs = {
            n: [cores.submit(measured, n, s, given.data, given.out) for s in range(given.seeds)] for n in given.only
        }
        found = {name: [job.result() for job in runs] for name, runs in jobs.items()}
    text = table(found, given.seeds)
    print(text)
    write(text)


if __name__ == "__main__":
    main()
