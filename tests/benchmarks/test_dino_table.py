"""The table of DINO's generations: what every cell trains, its commands, and all of it at work on drawn data sets."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from scipy.io import savemat

from benchmarks import dino_table
from benchmarks.dino_table import BACKBONES, DATASETS, METHODS, Cell, cells
from models.nets import licences
from tests.training.few_steps import few_steps
from tests.training.small_run import settled
from training.data.synthetic import street


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.key)
def test_a_cell_is_its_methods_recipe_on_whole_patches(cell: Cell) -> None:
    found, backbone, data = cell.recipe(), BACKBONES[cell.backbone], DATASETS[cell.dataset]
    assert (found.method, found.dataset, found.split, found.clusters.k) == (cell.method, data.name, data.split, data.k)
    assert (found.backbone.name, found.backbone.weights) == (backbone.name, "timm")
    assert found.input.size % backbone.patch == found.input.train_size % backbone.patch == 0
    assert abs(found.input.size - 320) <= 8
    begun = settled(cell.page)
    changed = {key for key, value in found.options.items() if begun.options[key] != value}
    own = cell.backbone == "dino_vits8"
    assert changed == (
        set() if own else {"stego": {"shifts"}, "smooseg": {"shifts"}, "cause": {"thresholds"}}.get(cell.method, set())
    )


def test_there_is_a_cell_of_every_method_backbone_and_data_set() -> None:
    assert len({cell.key for cell in cells()}) == len(METHODS) * 9
    assert {"kmeans", "stego", "cause"} <= METHODS.keys()


def test_patches_are_those_of_the_networks_and_licences_what_timm_says() -> None:
    for backbone in BACKBONES.values():
        assert f"patch{backbone.patch}_" in backbone.name
        assert timm.get_pretrained_cfg(backbone.name) is not None
        assert ("Apache-2.0" in backbone.licence) == (licences.licence_of(backbone.name) == "apache-2.0")
    assert licences.licence_of(BACKBONES["dinov3_vits16"].name) == "dinov3-license"


def test_listed_commands_are_what_people_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dino.pth").touch()
    asked = ["--data-root", "data", "--list", "--only", "stego:dinov3_vits16:potsdam3"]
    dino_table.main([*asked, "--weights", f"dinov3_vits16={tmp_path / 'dino.pth'}"])
    begin, score = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert begin[:2] == ["tessera", "train"]
    assert score[:2] == ["tessera", "evaluate"]
    given = {key: [b for a, b in pairwise(begin) if a == key] for key in ("--recipe", "--set")}
    found = settled(Path(given["--recipe"][0]), *given["--set"])
    assert found == Cell("stego", "dinov3_vits16", "potsdam3").recipe(str(tmp_path / "dino.pth"))
    assert found.options["shifts"] == "auto"
    assert begin[begin.index("--out") + 1] == score[2]


@pytest.mark.parametrize(("words", "count"), [(["kmeans"], 9), (["kmeans:potsdam3", "stego:coco27"], 6), ([], None)])
def test_a_pattern_is_any_part_of_a_key(words: list[str], count: int | None) -> None:
    assert len(dino_table.chosen(words)) == (len(cells()) if count is None else count)


def test_what_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"--only dinov4: write .*dinov3_vits16"):
        dino_table.main(["--only", "kmeans:dinov4"])
    for wrong, sentence in ((["--weights", "dino=x"], "write NAME=FILE"), (["--set", "seed=1"], "name another --page")):
        with pytest.raises(SystemExit):
            dino_table.main(wrong)
        assert sentence in capsys.readouterr().err


def test_the_docs_hold_the_table(tmp_path: Path) -> None:
    """Empty cells say what they need; of a result both scores stand there, in percent, beside what was published."""
    page = dino_table.PAGE.read_text(encoding="utf-8")
    assert all(mark in page for mark in dino_table.MARKS)
    cell = Cell("kmeans", "dino_vits8", "potsdam3")
    lines = dino_table.table({cell.key: {"plain": [0.5, 0.25], "crf": [0.625, 0.5]}}).splitlines()
    assert "50.0 / 25.0; CRF 62.5 / 50.0 | 56.6 / 33.6 |" in lines[-len(METHODS)]
    assert sum("needs: weights vit_small_patch16_dinov3.lvd1689m, data Cityscapes-27" in line for line in lines) == len(
        METHODS
    )


# All of it at work


def scenes(count: int, write: Callable[[int, np.ndarray, np.ndarray], object]) -> None:
    """Drawn streets of 64 × 80 pixels and label maps of two halves."""
    for i in range(count):
        halves = np.repeat([[0], [1]], 32, axis=0) * np.ones((1, 80), np.uint8)
        write(i, street((64, 80), i), halves.astype(np.uint8))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def laid_out(root: Path) -> Path:
    """The three data sets, six images a split."""
    for year in ("train2017", "val2017"):

        def coco(i: int, image: np.ndarray, halves: np.ndarray, year: str = year) -> None:
            save(root / "cocostuff" / "images" / year / f"{i:012}.jpg", image)
            save(root / "cocostuff" / "annotations" / year / f"{i:012}.png", 2 * halves)

        scenes(6, coco)
        listed = root / "cocostuff" / "curated" / year / "Coco164kFull_Stuff_Coarse_7.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("".join(f"{i:012}\n" for i in range(6)))
    for split in ("train", "val"):

        def city(i: int, image: np.ndarray, halves: np.ndarray, split: str = split) -> None:
            frame = f"ulm_000000_{i:06}"
            save(root / "cityscapes" / "leftImg8bit" / split / "ulm" / f"{frame}_leftImg8bit.png", image)
            save(root / "cityscapes" / "gtFine" / split / "ulm" / f"{frame}_gtFine_labelIds.png", 7 + halves)

        scenes(6, city)
    for folder in ("imgs", "gt"):
        (root / "potsdam" / folder).mkdir(parents=True)

    def patch(i: int, image: np.ndarray, halves: np.ndarray) -> None:
        infrared = np.dstack([image, image[..., :1]])
        savemat(root / "potsdam" / "imgs" / f"{i}.mat", {"img": infrared})
        savemat(root / "potsdam" / "gt" / f"{i}.mat", {"gt": 2 * halves})

    scenes(12, patch)
    for name, numbers in (("labelled_train", range(6)), ("labelled_test", range(6, 12))):
        (root / "potsdam" / f"{name}.txt").write_text("".join(f"{i}\n" for i in numbers))
    return root


def asked(folder: Path, cell: Cell) -> list[str]:
    """What makes a cell a matter of seconds: a tiny network under random weights, two steps of everything."""
    page = folder / "page.md"
    page.write_text("\n".join(["# Table", *dino_table.MARKS, ""]))
    small = ["backbone.name=test_vit", "backbone.weights=random", "input.train_size=64", "input.size=64", "workers=0",
             "clusters.restarts=1", *few_steps(cell.method)]  # fmt: skip
    return ["--data-root", str(folder / "data"), "--out", str(folder / "runs"), "--page", str(page),
            "--only", cell.key, "--set", *small]  # fmt: skip


def ran(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.dino_table", *arguments]
    env = os.environ | {"PYTHONPATH": str(dino_table.ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=dino_table.ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [
        *(Cell(method, "dinov3_vits16", "potsdam3") for method in METHODS),
        Cell("kmeans", "dino_vits8", "coco27"),
        Cell("stego", "dinov2_reg_vits14", "cityscapes27"),
    ],
    ids=lambda cell: cell.key,
)
def test_a_cell_is_trained_scored_kept_and_written(cell: Cell, tmp_path: Path) -> None:
    laid_out(tmp_path / "data")
    done = ran(asked(tmp_path, cell))
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "runs" / f"{cell.name}.json").read_text())
    facts = json.loads((tmp_path / "runs" / cell.name / "evaluation" / "evaluation.json").read_text())
    assert kept["images"] == 6
    assert kept["plain"] == [facts["rows"][0]["accuracy"], facts["rows"][0]["miou"]]
    assert kept["recipe"]["method"] == cell.method
    shown = f"{100 * kept['plain'][0]:.1f} / {100 * kept['plain'][1]:.1f}; CRF {100 * kept['crf'][0]:.1f} / "
    page = (tmp_path / "page.md").read_text()
    assert shown in page
    assert page.count("needs: weights") == len(cells()) - 1
    again = ran(asked(tmp_path, cell))  # nothing is done twice
    assert again.returncode == 0
    assert "images" not in again.stderr
    notice = (tmp_path / "runs" / cell.name / "bundle" / "NOTICE").read_text()
    assert BACKBONES[cell.backbone].licence in notice


@pytest.mark.slow
def test_what_is_not_at_hand_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    cell = Cell("kmeans", "dinov3_vits16", "potsdam3")
    arguments = asked(tmp_path, cell)
    done = ran([*arguments[: arguments.index("--set")], "--set", "seed=0"])
    assert done.returncode == 0, done.stderr
    assert f"{cell.key} needs: weights vit_small_patch16_dinov3.lvd1689m; data Potsdam-3 (" in done.stderr
    assert (tmp_path / "page.md").read_text().count("needs: weights") == len(cells())
