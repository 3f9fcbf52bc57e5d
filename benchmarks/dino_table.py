"""Five methods on three generations of DINO's features and three published data sets: a table to be filled.

    python -m benchmarks.dino_table --data-root data --list        the commands of every cell, as people type them
    python -m benchmarks.dino_table --data-root data --only kmeans:dinov3_vits16:potsdam3
    python -m benchmarks.dino_table --data-root data --only stego --weights dinov3_vits16=dinov3.pth
    python -m benchmarks.dino_table                                the table of what is finished

A cell is the published recipe of its method and data set with another backbone: two commands, `tessera train` and
`tessera evaluate`, which this only puts together and runs. --data-root holds cocostuff/, cityscapes/ and potsdam/, each
laid out as docs/datasets.md says. Weights are timm's, or a file for each backbone. What is finished is kept in --out, a
JSON file a cell, and not done again; what was stopped goes on. The table goes to docs/dino_table.md, between the two
marks; a cell that is empty says what it needs.

Within a data set all are trained on the same images and scored on the same ones; crops are as large as the method's
recipe says, up to the patch. Nothing is tuned: what was published for DINO's features alone (shifts, thresholds) is
read off the features where these are others. No label is read before a cell is trained.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from models.errors import TesseraError
from models.terminal.command_line import command
from training import methods
from training.config import recipe
from training.config.recipe import Recipe
from training.data import datasets
from training.pretraining.weights import hub_has

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "dino_table.md"
RECIPES = ROOT / "training" / "recipes"
MARKS = ("<!-- table -->", "<!-- end of table -->")


@dataclass(frozen=True)
class Backbone:
    """A network of the table. licence: of its weights, as a bundle's NOTICE has it."""

    title: str
    name: str  # timm's
    patch: int
    licence: str


@dataclass(frozen=True)
class DataSet:
    """A data set of the table, and the folder below --data-root that holds it."""

    title: str
    name: str
    split: str
    k: int


METHODS = {  # those that are here: a method's cells come with its file
    name: title
    for name, title in {
        "kmeans": "k-means of the features", "stego": "STEGO", "cause": "CAUSE-MLP", "smooseg": "SmooSeg",
        "primaps": "PriMaPs-EM",
    }.items()
    if name in methods.names()
}  # fmt: skip
BACKBONES = {
    "dino_vits8": Backbone("DINO ViT-S/8", "vit_small_patch8_224.dino", 8, "DINO weights: Apache-2.0"),
    "dinov2_reg_vits14": Backbone(
        "DINOv2 ViT-S/14 with registers", "vit_small_patch14_reg4_dinov2.lvd142m", 14, "DINOv2 weights: Apache-2.0"
    ),
    "dinov3_vits16": Backbone(
        "DINOv3 ViT-S/16", "vit_small_patch16_dinov3.lvd1689m", 16,
        "DINOv3 weights: DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/)",
    ),
}  # fmt: skip
DATASETS = {
    "coco27": DataSet("COCO-Stuff-27", "cocostuff", "train_7", 27),
    "cityscapes27": DataSet("Cityscapes-27", "cityscapes", "train", 27),
    "potsdam3": DataSet("Potsdam-3", "potsdam", "train", 3),
}
_PAGES = {"cause": "cause_mlp_vits8_{}"}  # of the others METHOD_vits8_DATASET
_NEAREST = {  # where none was published for ViT-S/8
    ("cause", "potsdam3"): "cause_mlp_vits8_coco27",
    ("smooseg", "potsdam3"): "smooseg_vitb8_potsdam3",
}
_OF_DINO = ("shifts", "thresholds")  # options whose fixed values fit DINO's features
# Accuracy and mIoU that others report of the same method and data set, and on what. With CRF: *.
# SmooSeg's are recalled, not read in its paper.
PUBLISHED = {
    ("kmeans", "dino_vits8"): ("34.2 / 9.5", "61.4 / 15.8", "56.6 / 33.6"),
    ("kmeans", "dinov2_reg_vits14"): ("44.5 / 22.9 ¹", "49.5 / 15.3 ¹", "75.9 / 61.0 ¹"),
    ("primaps", "dino_vits8"): ("46.5 / 16.4 ²", "81.2 / 19.4 ²", "62.5 / 38.9 ²"),
    ("primaps", "dinov2_reg_vits14"): ("46.5 / 23.8 ¹ ²", "71.5 / 19.0 ¹ ²", "78.5 / 64.3 ¹ ²"),
    ("stego", "dino_vits8"): ("48.3 / 24.5 *", "–", "77.0 / 62.6 *"),
    ("cause", "dino_vits8"): ("66.8 / 27.9 ³", "87.7 / 21.7 ³", "–"),
    ("smooseg", "dino_vits8"): ("63.2 / 26.7 * ²", "82.8 / 18.4 * ²", "82.7 / 70.3 * ² ⁴"),
}


@dataclass(frozen=True)
class Cell:
    """One setting. Its commands are what people would type."""

    method: str
    backbone: str
    dataset: str

    @property
    def key(self) -> str:
        """As --only takes it."""
        return f"{self.method}:{self.backbone}:{self.dataset}"

    @property
    def name(self) -> str:
        """Of its run's folder and its JSON file."""
        return self.key.replace(":", "-")

    @property
    def page(self) -> Path:
        """The published recipe that it begins with."""
        usual = _PAGES.get(self.method, f"{self.method}_vits8_{{}}").format(self.dataset)
        return RECIPES / f"{_NEAREST.get((self.method, self.dataset), usual)}.toml"

    def overrides(self, weights: str = "timm", more: Sequence[str] = ()) -> list[str]:
        """What is not the recipe's own, as `--set` takes it.

        weights  timm, or a file of this backbone's;  more  for trials: behind all others
        """
        backbone, data = BACKBONES[self.backbone], DATASETS[self.dataset]
        begun = recipe.parse(recipe.read(self.page), config_of=methods.config)
        found = {
            "dataset": data.name, "split": data.split, "clusters.k": data.k,
            "backbone.name": backbone.name, "backbone.weights": weights, "export.licence": json.dumps(backbone.licence),
            "input.train_size": _fitting(begun.input.train_size, backbone.patch),
            "input.size": _fitting(begun.input.size, backbone.patch),
        }  # fmt: skip
        if self.backbone != "dino_vits8":
            found |= {f"{self.method}.{key}": "auto" for key in _OF_DINO if key in begun.options}
        return [*(f"{key}={value}" for key, value in found.items()), *more]

    def recipe(self, weights: str = "timm", more: Sequence[str] = ()) -> Recipe:
        """What `train` trains. Raises UsageError."""
        overrides = self.overrides(weights, more)
        return recipe.parse(recipe.read(self.page), config_of=methods.config, overrides=overrides)

    def train(self, root: Path, out: Path, weights: str = "timm", more: Sequence[str] = ()) -> list[str]:
        """Arguments of `tessera train`: a run that was begun goes on."""
        home = str(out / self.name)
        if (out / self.name / "run.json").is_file():
            return ["--out", home, "--resume"]
        data = str(root / DATASETS[self.dataset].name)
        sets = [word for one in self.overrides(weights, more) for word in ("--set", one)]
        return ["--recipe", os.path.relpath(self.page), "--data", data, "--out", home, *sets]

    def evaluate(self, root: Path, out: Path) -> list[str]:
        """Arguments of `tessera evaluate`: on split val, the papers' central squares, with and without CRF."""
        data = DATASETS[self.dataset].name
        return [str(out / self.name), "--dataset", data, "--data", str(root / data), "--split", "val",
                "--protocol", "crop", "--crf"]  # fmt: skip


def cells() -> list[Cell]:
    """Every setting, data set by data set."""
    return [Cell(m, b, d) for d, m, b in product(DATASETS, METHODS, BACKBONES)]


def chosen(asked: Iterable[str]) -> list[Cell]:
    """The cells of which every word of one of the patterns is a part: `stego`, `kmeans:potsdam3`, or a whole key."""
    wanted = [set(one.split(":")) for one in asked]
    known = {*METHODS, *BACKBONES, *DATASETS}
    if unknown := sorted(set().union(*wanted) - known):
        raise SystemExit(f"--only {', '.join(unknown)}: write {', '.join(sorted(known))}, joined by colons")
    return [cell for cell in cells() if not wanted or any(one <= set(cell.key.split(":")) for one in wanted)]


def lacking(cell: Cell, root: Path, weights: str, more: Sequence[str] = ()) -> list[str]:
    """What of a cell is not at hand: its weights, its data."""
    settled, found = cell.recipe(weights, more), []
    asked = settled.backbone
    at_hand = Path(asked.weights).is_file() or asked.weights == "random"
    if not at_hand and not (asked.weights == "timm" and _at_hub(asked.name)):
        found.append(f"weights {asked.name}")
    for split in (settled.split, "val"):
        try:
            datasets.find(settled.dataset, [root / settled.dataset], split)
        except TesseraError as error:
            found.append(f"data {DATASETS[cell.dataset].title} ({error})")
            break
    return found


def measure(cell: Cell, root: Path, out: Path, weights: str, more: Sequence[str]) -> bool:
    """Trains and scores a cell in processes of their own, into its JSON file; False where one of them failed."""
    began, settled = time.monotonic(), cell.recipe(weights, more)
    for script, arguments in (("train", cell.train(root, out, weights, more)), ("evaluate", cell.evaluate(root, out))):
        program = [sys.executable, str(ROOT / "training" / f"{script}.py")]
        done = subprocess.run([*program, *arguments], check=False, stdout=sys.stderr)
        if done.returncode:
            print(f"{cell.key}: {script} ended with {done.returncode}; the same command goes on", file=sys.stderr)
            return False
    facts = json.loads((out / cell.name / "evaluation" / "evaluation.json").read_text())
    plain, crf = (next(row for row in facts["rows"] if row["crf"] == refined) for refined in (False, True))
    found = {
        "cell": cell.key,
        "seconds": round(time.monotonic() - began),
        "images": facts["images"],
        "plain": [plain["accuracy"], plain["miou"]],
        "crf": [crf["accuracy"], crf["miou"]],
        "recipe": recipe.page_of(settled),
    }
    (out / f"{cell.name}.json").write_text(json.dumps(found, indent=1))
    return True


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown, one table a data set: accuracy / mIoU in percent, without and with CRF, beside what was published."""
    lines = []
    for column, (dataset, data) in enumerate(DATASETS.items()):
        heads = [f"{backbone.title} | published" for backbone in BACKBONES.values()]
        lines += [f"**{data.title}**", "", f"| | {' | '.join(heads)} |", f"|---{'|---|---' * len(BACKBONES)}|"]
        for method, title in METHODS.items():
            row = []
            for backbone in BACKBONES:
                cell = Cell(method, backbone, dataset)
                published = PUBLISHED.get((method, backbone), ("–",) * len(DATASETS))[column]
                row += [_shown(cell, found.get(cell.key)), published]
            lines.append(f"| {title} | {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines[:-1])


def _shown(cell: Cell, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"needs: weights {BACKBONES[cell.backbone].name}, data {DATASETS[cell.dataset].title}"
    plain, crf = (f"{100 * accuracy:.1f} / {100 * miou:.1f}" for accuracy, miou in (result["plain"], result["crf"]))
    return f"{plain}; CRF {crf}"


def write(text: str, page: Path) -> None:
    """The table into its page."""
    head, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    page.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


_at_hub = functools.cache(hub_has)


def _fitting(pixels: int, patch: int) -> int:
    """The nearest side of whole patches."""
    return max(1, round(pixels / patch)) * patch


def _file_of(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if name not in BACKBONES or not file:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=FILE, NAME one of {', '.join(BACKBONES)}")
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{file}: there is no such file")
    return name, os.path.abspath(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands of this file's first lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data-root", type=Path, help="holds cocostuff/, cityscapes/, potsdam/; without it: the table alone"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/dino"))
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD:BACKBONE:DATASET", help="any part of it")
    parser.add_argument(
        "--weights", nargs="+", type=_file_of, default=[], metavar="NAME=FILE", help="instead of timm's"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="a.b=v", help="for trials: of every recipe, over all else"
    )
    parser.add_argument("--list", action="store_true", help="the commands, and nothing is run")
    parser.add_argument("--page", type=Path, default=PAGE, help="that has the marks")
    given = parser.parse_args(arguments)
    if given.set and not given.list and given.page == PAGE:
        parser.error("what --set changes is no cell of the docs: name another --page and --out")
    files, failed = dict(given.weights), False
    for cell in chosen(given.only):
        weights = files.get(cell.backbone, "timm")
        if given.list:
            root = given.data_root or Path("data")
            print(command("train", *cell.train(root, given.out, weights, given.set)))
            print(command("evaluate", *cell.evaluate(root, given.out)))
        elif given.data_root is not None and not (given.out / f"{cell.name}.json").exists():
            if needs := lacking(cell, given.data_root, weights, given.set):
                print(f"{cell.key} needs: {'; '.join(needs)}", file=sys.stderr)
                continue
            given.out.mkdir(parents=True, exist_ok=True)
            failed |= not measure(cell, given.data_root, given.out, weights, given.set)
    if given.list:
        return
    kept = {cell.key: given.out / f"{cell.name}.json" for cell in cells()}
    text = table({key: json.loads(file.read_text()) for key, file in kept.items() if file.exists()})
    print(text)
    write(text, given.page)
    sys.exit(failed)


if __name__ == "__main__":
    main()
