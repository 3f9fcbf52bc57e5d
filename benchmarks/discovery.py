"""What is found in folders of four kinds: streets, photos of anything, textures and tissue, land from above.

    python -m benchmarks.discovery --prepare                        images, label maps, one backbone a kind: once
    python -m benchmarks.discovery [--only tissue] [--seeds 3]      everything: half an hour on two cores
    python -m benchmarks.discovery --table                          the figures of what is finished, and no more
    python -m benchmarks.discovery --discovery wider clusters.runs=3 clusters.distill_steps=300

Streets are 90 frames of CamVid and 72 drawn ones, photos a hundred without labels; of the others there is no data set,
so 72 of each are drawn (training/data/synthetic). Of every kind a small backbone is pretrained on its images alone, as
`tessera train --data DIR` does where no hub answers, and of every seed one STEGO is trained on it by
training/recipes/folder-stego.toml: ways of discovery share both, and differ in nothing but the recipe's values that
`DISCOVERIES` names. Each is asked for as many clusters as there are classes (16 where nobody knows) and for as many as
it thinks best. Its label maps, at the images' own size and all scored together, are held against the labels one to one
(Hungarian; pixels of unmatched clusters are errors) and many to one (every cluster is what most of its pixels show).
No label is read before the maps are written.

Every (kind, seed) is a process of its own on one core, as many at a time as there are cores. What is finished is kept
in --out and not done again: KIND/cells holds figures and label maps, KIND/WAY.jpg some of the maps to look at. All
figures are written to benchmarks/results/discovery.json and, as a table, to docs/training.md between two marks.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from benchmarks import baselines, machine
from models import palette
from models.assign import labels as best
from models.files import write_atomically
from models.preprocess import InputSpec, fit
from models.types import Array
from training import methods
from training.config import recipe as recipes
from training.config.recipe import Recipe
from training.config.run import Run
from training.data import datasets, synthetic
from training.data.datasets import camvid
from training.data.images import Images, evenly
from training.data.preprocess import input_spec
from training.data.regions import open_regions
from training.discovery.discover import discover
from training.evaluation import metrics
from training.evaluation.exported import Exported
from training.export.onnx import Deployed, to_onnx
from training.methods.base import Method
from training.pipeline import build
from training.pretraining import weights
from training.pretraining.pretraining import pretrain
from training.train import default_recipe
from training.trainer import loop
from training.trainer.loop import Workspace

# What each way of discovery asks of the recipe, as `--set` takes it. A further one is a line.
DISCOVERIES: dict[str, tuple[str, ...]] = {"old": ("clusters.merge=false",), "merged": ("clusters.merge=true",)}
BASELINES = ("pixels", "regions")  # k-means of colors and places: what a kind must be too hard for
UNKNOWN_K = 16
RESULTS = Path(__file__).resolve().parent / "results" / "discovery.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
MARKS = ("<!-- discovery -->", "<!-- end of discovery -->")
DRAWN, _FRAMES, _PHOTOS = 72, 90, 100
_SHOWN, _ACROSS, _SHOWN_HEIGHT = 24, 4, 160  # of a sheet: images, columns, pixels


@dataclass(frozen=True)
class Kind:
    """A folder of images, KIND/photos, and where there are any its label maps, KIND/labels.

    source   below the folder of data: images and label maps; None: they are drawn
    classes  names by value; empty: nobody knows
    most     of the images there, so many
    """

    title: str
    classes: tuple[str, ...] = ()
    source: tuple[str, str] | None = None
    most: int = 0

    @property
    def k(self) -> int:
        """How many clusters are asked for."""
        return len(self.classes) or UNKNOWN_K


def kinds() -> dict[str, Kind]:
    """Every kind, in the table's order."""
    streets = ("camvid/images/train", "camvid/labels/train")
    found = {
        "camvid": Kind("streets (CamVid)", camvid.CLASS_NAMES, streets, _FRAMES),
        "photos": Kind("photos of anything", (), ("photos", ""), _PHOTOS),
    }
    titles = {"streets": "streets, drawn", "aerial": "land from above"}
    return found | {name: Kind(titles.get(name, name), synthetic.class_names(name)) for name in synthetic.kinds()}


def prepare(name: str, data: Path, out: Path, console: Console) -> None:
    """Lays out a kind's images and label maps, and trains its backbone; what is there already stays."""
    kind, home = kinds()[name], out / name
    if not (home / "photos").is_dir():
        half = home / "half"
        shutil.rmtree(half, ignore_errors=True)
        for folder in ("labels", "photos") if kind.classes else ("photos",):
            (half / folder).mkdir(parents=True)
        if kind.source is None:
            draw(name, half)
        else:
            copy(kind, data, half)
        for part in sorted(half.iterdir()):  # labels come first: where there are photos, there is all
            part.replace(home / part.name)
        half.rmdir()
    if not (file := home / weights.FILE).exists():
        images = opened(home, console)
        options = weights.options_for(recipe_of(kind, 0, home), images)
        regions = open_regions(images.paths, options.regions, home / "cache" / "regions", console, read=images.read)
        place = Workspace(file.with_suffix(".partial"), file.with_suffix(".log.jsonl"), 0, console, "the same command")
        pretrain(regions, options, torch.device("cpu"), place, file)


def draw(name: str, to: Path) -> None:
    """Pictures of a kind, and their label maps."""
    for seed in range(DRAWN):
        image, labels = synthetic.draw(name, seed=seed)
        Image.fromarray(image).save(to / "photos" / f"{seed:03d}.jpg", quality=92)
        Image.fromarray(labels).save(to / "labels" / f"{seed:03d}.png")


def copy(kind: Kind, data: Path, to: Path) -> None:
    """Some of the images below the folder of data, in equal steps, with their label maps."""
    assert kind.source is not None
    photos, labels = (data / part for part in kind.source)
    paths = datasets.find("folder", datasets.resolved(photos), "train").paths
    for i in evenly(len(paths), kind.most):
        shutil.copy(paths[i], to / "photos")
        if kind.classes:
            shutil.copy(labels / f"{paths[i].stem}.png", to / "labels")


def opened(home: Path, console: Console) -> Images:
    """The images of a kind, without their labels."""
    return datasets.open("folder", home / "photos", console=console)


def recipe_of(kind: Kind, seed: int, home: Path, overrides: Iterable[str] = (), *, auto: bool = False) -> Recipe:
    """The recipe for a folder of one's own, on the kind's backbone."""
    values = [f"seed={seed}", f"clusters.k={'auto' if auto else kind.k}"]
    values += ["backbone.name=resnet10t", f"backbone.weights={home / weights.FILE}", "train.preview_every=0"]
    return recipes.parse(default_recipe(None), config_of=methods.config, overrides=[*values, *overrides])


def trained(run: Run) -> Method[Any]:
    """The recipe's method, trained; from the run's checkpoint where it has been before."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.checkpoints.mkdir(exist_ok=True)
    (run.cache / "facts").mkdir(exist_ok=True)
    method = build(run)
    method.prepare()
    loop.fit(method, method.stages(), run)
    return method


def found_by(run: Run, method: Method[Any]) -> baselines.Labeler:
    """The clusters that a recipe finds in a method's codes: image → label map, as it is served."""
    segmenter = discover(run, method)
    spec = input_spec(segmenter.encoder, run.recipe.input.size)
    network = Exported(to_onnx(Deployed(segmenter.encoder, segmenter.compared.detach().float()), spec), threads=1)
    return lambda image: _labels(network, spec, image)


def _labels(network: Exported, spec: InputSpec, image: Array) -> Array:
    one = fit(image, spec)
    return best(network(one.pixels[None]).scores[0], one.source, one.box)


def cells(discoveries: dict[str, tuple[str, ...]], kind: Kind) -> list[tuple[str, str]]:
    """(way, "k" or "auto") of everything that is done with one seed of a kind."""
    own = [(name, k) for name in discoveries for k in ("k", "auto")]
    return [*((name, "k") for name in BASELINES if kind.classes), *own]


def one(name: str, seed: int, out: Path, discoveries: dict[str, tuple[str, ...]]) -> None:
    """Every cell of a kind and a seed that is not done yet."""
    kind, home, console = kinds()[name], out / name, Console(stderr=True)
    todo = [(way, k) for way, k in cells(discoveries, kind) if not cell(home, way, k, seed).exists()]
    if not todo:
        return
    images = opened(home, console)
    basis = Run(recipe_of(kind, seed, home), images, home / f"seed-{seed}", torch.device("cpu"), console)
    for way, k in todo:
        method = None if way in BASELINES else trained(basis)  # anew each time: a way may change its network
        began = time.process_time()
        if method is None:
            labeler = getattr(baselines, way)([images[i] for i in range(len(images))], kind.k, seed)
        else:
            asked = recipe_of(kind, seed, home, discoveries[way], auto=k == "auto")
            labeler = found_by(replace(basis, recipe=asked), method)
        keep(images, labeler, kind, cell(home, way, k, seed), began, {"kind": name, "way": way, "k": k, "seed": seed})


def keep(images: Images, label: baselines.Labeler, kind: Kind, file: Path, began: float, known: dict[str, Any]) -> None:
    """Writes the label maps of a cell, then its figures."""
    maps = [label(images[i]) for i in range(len(images))]
    seconds, folder = time.process_time() - began, file.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for path, found in zip(images.paths, maps, strict=True):
        Image.fromarray(found).save(folder / f"{path.stem}.png")
    used = sorted({int(value) for found in maps for value in np.unique(found)})
    figures = known | {"clusters": len(used), "seconds": round(seconds, 1)}
    if kind.classes:
        labelled = datasets.with_labels(images, folder.parents[1] / "labels")
        clusters = max(used[-1] + 1, 1)
        table = sum(
            metrics.confusion(found, labelled.labels(i), clusters, len(kind.classes)) for i, found in enumerate(maps)
        )
        figures |= scores(np.asarray(table))
    write_atomically(file, lambda target: target.write(json.dumps(figures).encode()))


def scores(table: Array) -> dict[str, Any]:
    """Accuracy and mIoU, 0..1, one to one and many to one, of a confusion [K, N]; and IoU by class, one to one."""
    single, many = metrics.score(table), metrics.score(table, table.argmax(axis=1))
    return {
        "accuracy": single.accuracy,
        "miou": single.miou,
        "many_accuracy": many.accuracy,
        "many_miou": many.miou,
        "iou": [None if np.isnan(value) else float(value) for value in single.iou],
    }


def cell(home: Path, way: str, k: str, seed: int) -> Path:
    """Where the figures of a cell are kept; its label maps lie in the folder of the same name."""
    return home / "cells" / f"{way}-{k}-{seed}.json"


def sheet(home: Path, name: str) -> None:
    """HOME/NAME.jpg: some images with the label maps of a cell beside them."""
    paths = sorted((home / "cells" / name).glob("*.png"))
    colors = palette.distinct(256)
    tiles = []
    for path in [paths[i] for i in evenly(len(paths), _SHOWN)]:
        labels = np.asarray(Image.open(path))
        photo = next((home / "photos").glob(f"{path.stem}.*"))
        pair = np.concatenate([np.asarray(Image.open(photo).convert("RGB")), colors[labels]], axis=1)
        width = 2 * round(_SHOWN_HEIGHT * 4 / 3)
        tiles.append(np.asarray(Image.fromarray(pair).resize((width, _SHOWN_HEIGHT))))
    rows = [np.concatenate(tiles[i : i + _ACROSS], axis=1) for i in range(0, len(tiles) - _ACROSS + 1, _ACROSS)]
    Image.fromarray(np.concatenate(rows)).save(home / f"{name}.jpg", quality=88)


def done(name: str, seed: int, given: argparse.Namespace) -> None:
    """`one` in a process of its own, on one core."""
    command = [sys.executable, "-m", "benchmarks.discovery", "--out", given.out, "--one", f"{name},{seed}"]
    for way, *overrides in given.discovery:
        command += ["--discovery", way, *overrides]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}
    if subprocess.run([str(part) for part in command], env=one_core, check=False).returncode:
        raise SystemExit(f"{name}, seed {seed} failed: its messages are above")


def finished(out: Path, discoveries: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """The figures of every cell that is done, in the table's order, whichever call did it."""
    found = []
    for name, kind in kinds().items():
        for way, k in cells(discoveries, kind):
            files = sorted(
                (out / name / "cells").glob(f"{way}-{k}-[0-9]*.json"), key=lambda file: int(file.stem.split("-")[-1])
            )
            found += [json.loads(file.read_text()) for file in files]
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over the seeds, fractions; clusters and seconds are medians."""
    lines = [
        "| | way | K | seeds | clusters | accuracy | mIoU | many to one: accuracy | mIoU | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, kind in kinds().items():
        of_kind = [run for run in found if run["kind"] == name]
        for way, k in dict.fromkeys((run["way"], run["k"]) for run in of_kind):
            runs = [run for run in of_kind if (run["way"], run["k"]) == (way, k)]
            figures = [spread(runs, figure) for figure in ("accuracy", "miou", "many_accuracy", "many_miou")]
            clusters, seconds = (statistics.median(run[figure] for run in runs) for figure in ("clusters", "seconds"))
            asked = "auto" if k == "auto" else kind.k
            row = [kind.title, TITLES.get(way, way), asked, len(runs), f"{clusters:.0f}", *figures, f"{seconds:.0f}"]
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


TITLES = {"pixels": "k-means of pixels: color, place", "regions": "k-means of regions: color, spread, place"}


def spread(runs: list[dict[str, Any]], figure: str) -> str:
    """ ".214 ± .010", of one seed ".214"; – where there are no labels."""
    values = [run[figure] for run in runs if figure in run]
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}".replace("0.", ".")


def write(found: list[dict[str, Any]]) -> None:
    """The figures into their file, the table into its page."""
    RESULTS.write_text(json.dumps({"machine": machine.describe(), "cells": found}, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(MARKS[0])
    tail = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{head}{MARKS[0]}\n{table(found)}\n{MARKS[1]}{tail}", encoding="utf-8")


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds camvid and photos")
    parser.add_argument("--out", type=Path, default=Path("runs/discovery"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(kinds()), default=list(kinds()))
    parser.add_argument(
        "--discovery",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME a.b=v",
        help="a further way, and its recipe",
    )
    parser.add_argument("--prepare", action="store_true", help="only images, label maps and backbones")
    parser.add_argument("--table", action="store_true", help="only the figures of what is finished")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    discoveries = DISCOVERIES | {name: tuple(overrides) for name, *overrides in given.discovery}
    if given.one:
        name, seed = given.one.split(",")
        one(name, int(seed), given.out, discoveries)
        return
    if not given.table:
        for name in given.only:
            prepare(name, given.data, given.out, Console(stderr=True))
        if given.prepare:
            return
        with ThreadPoolExecutor(os.cpu_count()) as cores:
            jobs = [cores.submit(done, name, seed, given) for name in given.only for seed in range(given.seeds)]
            for job in jobs:
                job.result()
        for name in given.only:
            for way, k in cells(discoveries, kinds()[name]):
                sheet(given.out / name, cell(given.out / name, way, k, 0).stem)
    found = finished(given.out, discoveries)
    print(table(found))
    write(found)


if __name__ == "__main__":
    main()
