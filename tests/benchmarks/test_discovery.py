"""What is done once, what is scored and how, and that ways of discovery share all but their recipes' values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks import discovery
from training.data import datasets, synthetic

QUIET = Console(quiet=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Six small drawn pictures with their label maps, as `prepare` lays them out."""
    for folder in ("photos", "labels"):
        (tmp_path / "tissue" / folder).mkdir(parents=True)
    for seed in range(6):
        image, labels = synthetic.draw("tissue", (48, 64), seed)
        Image.fromarray(image).save(tmp_path / "tissue" / "photos" / f"{seed:03d}.png")
        Image.fromarray(labels).save(tmp_path / "tissue" / "labels" / f"{seed:03d}.png")
    return tmp_path / "tissue"


def test_one_class_in_two_clusters_is_right_many_to_one_only() -> None:
    found = discovery.scores(np.array([[60, 0], [20, 0], [0, 20]]))
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["miou"] == pytest.approx((60 / 80 + 1) / 2)
    assert found["many_accuracy"] == found["many_miou"] == 1.0
    assert found["iou"] == pytest.approx([0.75, 1.0])


def test_a_class_that_occurs_nowhere_has_no_score() -> None:
    assert discovery.scores(np.array([[5, 0, 0], [0, 0, 5]]))["iou"] == [1.0, None, 1.0]


def test_maps_are_written_and_what_is_right_scores_one(home: Path) -> None:
    images = discovery.opened(home, QUIET)
    kind, file = discovery.kinds()["tissue"], discovery.cell(home, "old", "k", 0)
    truth = {images[i].tobytes(): (synthetic.draw("tissue", (48, 64), i).labels + 3) % 7 for i in range(6)}
    discovery.keep(images, lambda image: truth[image.tobytes()], kind, file, 0.0, {"kind": "tissue"})
    figures = json.loads(file.read_text())
    assert (figures["accuracy"], figures["miou"], figures["many_accuracy"]) == (1.0, 1.0, 1.0)
    assert figures["clusters"] == len(np.unique(list(truth.values())))
    assert sorted(path.name for path in file.with_suffix("").iterdir()) == [f"{i:03d}.png" for i in range(6)]


def test_what_is_done_is_not_done_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = discovery.kinds()["tissue"]
    for way, k in discovery.cells({"old": ()}, kind):
        file = discovery.cell(home, way, k, 1)
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    monkeypatch.setattr(discovery, "opened", None)  # nothing is even opened
    discovery.one("tissue", 1, home.parent, {"old": ()})


def test_the_table_is_of_all_that_is_done_in_order_of_ways_and_seeds(tmp_path: Path) -> None:
    for name, way, seed in (("tissue", "old", 10), ("tissue", "old", 2), ("tissue", "pixels", 0), ("camvid", "old", 0)):
        file = discovery.cell(tmp_path / name, way, "k", seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([name, way, seed]))
    done = [["camvid", "old", 0], ["tissue", "pixels", 0], ["tissue", "old", 2], ["tissue", "old", 10]]
    assert discovery.finished(tmp_path, {"old": ()}) == done


def test_baselines_are_for_kinds_with_labels_and_every_way_is_asked_twice() -> None:
    all_kinds, ways = discovery.kinds(), {"old": (), "new": ("clusters.runs=3",)}
    assert discovery.cells(ways, all_kinds["photos"]) == [(way, k) for way in ways for k in ("k", "auto")]
    assert [way for way, _ in discovery.cells(ways, all_kinds["aerial"])][:2] == ["pixels", "regions"]
    assert all_kinds["photos"].k == 16
    assert all_kinds["camvid"].k == 11


def test_ways_differ_in_what_they_override_and_in_nothing_else(tmp_path: Path) -> None:
    kind = discovery.kinds()["aerial"]
    (tmp_path / "backbone.safetensors").touch()
    old = discovery.recipe_of(kind, 2, tmp_path)
    new = discovery.recipe_of(kind, 2, tmp_path, ("clusters.position=0.5",), auto=True)
    assert [one.partition(":")[0] for one in old.differences(new)] == ["clusters.k", "clusters.position"]
    assert (old.clusters.k, new.clusters.k, old.seed) == (7, "auto", 2)


def test_images_are_copied_in_equal_steps_with_their_label_maps(tmp_path: Path, home: Path) -> None:
    kind = discovery.Kind("tissue", synthetic.class_names("tissue"), ("tissue/photos", "tissue/labels"), most=3)
    for folder in ("photos", "labels"):
        (tmp_path / "some" / folder).mkdir(parents=True)
    discovery.copy(kind, home.parent, tmp_path / "some")
    images = datasets.open("folder", tmp_path / "some" / "photos", console=QUIET, fewest=1)
    assert [path.stem for path in images.paths] == ["000", "002", "004"]
    assert sorted(path.stem for path in (tmp_path / "some" / "labels").iterdir()) == ["000", "002", "004"]


def test_the_table_has_a_line_for_each_way_and_k() -> None:
    def run(kind: str, k: str, seed: int, **scores: float) -> dict[str, Any]:
        return {"kind": kind, "way": "old", "k": k, "seed": seed, "clusters": 7, "seconds": 30.0, **scores}

    scored = {"miou": 0.25, "many_accuracy": 0.6, "many_miou": 0.3}
    lines = discovery.table(
        [
            run("tissue", "k", 0, accuracy=0.4, **scored),
            run("tissue", "k", 1, accuracy=0.5, **scored),
            run("photos", "auto", 0),
        ]
    ).splitlines()
    assert lines[2] == "| photos of anything | old | auto | 1 | 7 | – | – | – | – | 30 |"
    assert lines[3].startswith("| tissue | old | 7 | 2 | 7 | .450 ± .071 | .250 ± .000 | .600 ± .000 |")


def test_a_sheet_shows_maps_beside_their_images(home: Path) -> None:
    folder = home / "cells" / "old-k-0"
    folder.mkdir(parents=True)
    for seed in range(6):
        Image.fromarray(np.full((48, 64), seed, np.uint8)).save(folder / f"{seed:03d}.png")
    discovery.sheet(home, "old-k-0")
    with Image.open(home / "old-k-0.jpg") as sheet:
        assert sheet.size == (4 * 2 * 213, 160)


@pytest.mark.slow
def test_a_kind_is_prepared_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "DRAWN", 8)
    discovery.prepare("textures", tmp_path, tmp_path, QUIET)
    ways = {"old": ("input.size=64",)}
    discovery.one("textures", 0, tmp_path, ways)
    for way, k in discovery.cells(ways, discovery.kinds()["textures"]):
        figures = json.loads(discovery.cell(tmp_path / "textures", way, k, 0).read_text())
        assert 0.1 < figures["accuracy"] <= figures["many_accuracy"] <= 1
    assert figures["k"] == "auto"
    assert figures["clusters"] >= 2
