"""What holds no data is in no feature that is used, no region, no cluster, no share and no score."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import typer
from PIL import Image
from rich.console import Console

from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import segment
from models.io.encode import encode
from tests.training.features.test_store import OPTIONS, Patches, encoder
from tests.training.gaps import cut, gap, halves
from tests.training.small_run import draw, make, small_run
from training import evaluate, pretrain, train
from training.clustering.minibatch_kmeans import MiniBatchKMeans
from training.data import datasets
from training.data.datasets import with_labels
from training.data.errors import DataError
from training.data.preprocess import input_spec
from training.data.regions import NO_REGION, RegionOptions, open_regions
from training.data.synthetic import street
from training.discovery.cluster_codes import sample
from training.discovery.consensus import agreement, cluster_regions, consensus
from training.evaluation.exported import Exported
from training.evaluation.scoring import Labelled
from training.features.region_codes import region_codes
from training.features.store import open_features
from training.losses.correspondence import draw_points, onto_valid
from training.pretraining import views
from training.pretraining.options import PretrainOptions
from training.trainer.seeds import seed_all

CPU = torch.device("cpu")
STEGO = ["method=stego", "backbone.name=test_resnet", "stego.code_dim=8", "stego.points=4", "stego.batch_size=4"]
CAUSE = [
    "method=cause", "backbone.name=test_resnet", "cause.code_dim=8", "cause.projection_dim=8", "cause.concepts=6",
    "cause.batch_size=4", "cause.cell=2", "cause.center=true", "cause.thresholds=auto", "cause.probe_start=kmeans",
]  # fmt: skip
SMOOSEG = ["method=smooseg", "backbone.name=test_resnet", "smooseg.code_dim=8", "smooseg.batch_size=4"]
PICIE = ["method=picie", "backbone.name=test_resnet", "picie.code_dim=8", "picie.epochs=1"]
REGIONS = RegionOptions(size=(64, 64), scales=(50.0, 100.0), contrast=0)


# Features


def test_cells_without_data_are_marked_and_in_no_mean(tmp_path: Path) -> None:
    run = small_run(tmp_path, images=halves(tmp_path / "images"))
    found = open_features(encoder(Patches()), OPTIONS, run)
    valid = found.valid_cells([3, 5], CPU)
    assert valid is not None
    assert valid.tolist() == [(~gap(4)).tolist()] * 2
    torch.testing.assert_close(found.mean(3), found.batch([3], CPU)[0, :, :, 2:].mean((1, 2)))
    again = open_features(encoder(Patches(patience=0)), OPTIONS, run)
    assert torch.equal(again.valid_cells([3, 5], CPU), valid)  # type: ignore[arg-type]


def test_neighbors_are_told_by_what_holds_data(tmp_path: Path) -> None:
    """Images that are alike in their right halves: what the left ones of two of them hold is no likeness."""
    images = draw(tmp_path / "images", 8)
    whole = open_features(encoder(Patches()), OPTIONS, small_run(tmp_path, images=images))
    for path in images.paths:
        pixels = np.array(Image.open(path))
        pixels[:, :32] = pixels[:, 32:]
        Image.fromarray(pixels).save(path)
    mirrored = small_run(tmp_path / "mirrored", images=datasets.open("folder", images.root, console=quiet()))
    wanted = open_features(encoder(Patches()), OPTIONS, mirrored).neighbors
    for path in images.paths:
        cut(path, slice(0, 32))
    run = small_run(tmp_path / "gaps", images=datasets.open("folder", images.root, console=quiet()))
    assert np.array_equal(open_features(encoder(Patches()), OPTIONS, run).neighbors, wanted)
    assert not np.array_equal(whole.neighbors, wanted)


def test_crops_without_data_are_nobodys_neighbors_and_in_no_batch(tmp_path: Path) -> None:
    """Of five crops the two at the left hold nothing."""
    run = small_run(tmp_path, images=halves(tmp_path / "images"))
    found = open_features(encoder(Patches()), replace(OPTIONS, five_crop=True), run)
    assert len(found) == 24
    assert found.rows(range(6)).tolist() == [1, 3, 4, 6, 8, 9]
    assert found.neighbors[:, 0].tolist() == list(range(24))
    assert torch.equal(found.batch([1], CPU)[0], torch.from_numpy(np.array(found.maps[3])))
    assert found.valid_cells([0, 1, 3], CPU) is None  # these three are whole


def test_images_that_hold_everything_have_no_marks(tmp_path: Path) -> None:
    found = open_features(encoder(Patches()), OPTIONS, small_run(tmp_path))
    assert found.valid is found.kept is None


def test_too_few_crops_with_data_are_an_error(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", 8)
    for path in images.paths[:6]:
        cut(path, slice(0, 64))
    with pytest.raises(TesseraError, match="2 of 8 crops hold data"):
        open_features(encoder(Patches()), OPTIONS, small_run(tmp_path, images=images))


# Methods


def test_points_move_to_the_middle_of_cells_with_data() -> None:
    valid = torch.from_numpy(~gap(4)).expand(3, 4, 4)
    points = draw_points(3, 20, torch.Generator().manual_seed(0))
    moved = onto_valid(points, valid, torch.Generator().manual_seed(1))
    x = moved[..., 0]
    assert x.min() >= 1 / 3 - 1e-6  # the middle of the third column of four
    kept = points[..., 0] > 1 / 3  # nothing of the second column is in those
    assert torch.equal(moved[kept], points[kept])
    assert (x[~kept] - 1 / 3).abs().minimum((x[~kept] - 1).abs()).max() < 1e-6
    assert torch.equal(onto_valid(points, torch.ones(3, 4, 4, dtype=torch.bool)), points)


@pytest.mark.parametrize(
    "overrides",
    [
        [*STEGO, "stego.shifts=auto"],
        [
            *STEGO,
            "stego.weight_crf=0.1",
            "stego.crf_points=9",
            "stego.weight_reconstruction=0.5",
            "stego.centering=paper",
        ],
        CAUSE,
        [*CAUSE, "cause.cell=1", "cause.bank=0"],
        SMOOSEG,
        [*SMOOSEG, "smooseg.shifts=auto", "smooseg.dropout=0"],
    ],
)
def test_what_a_frozen_backbone_says_of_gaps_changes_nothing(tmp_path: Path, overrides: list[str]) -> None:
    images = halves(tmp_path / "images")

    def losses(garbage: float) -> list[Any]:
        torch.manual_seed(0)  # as the loop does before a stage
        method = make(small_run(tmp_path, *overrides, images=images))
        maps = np.array(method.features.maps)
        maps[:, :, gap(maps.shape[-1])] = garbage
        method.features = replace(method.features, maps=maps)
        shares = {"stego": [0.5, 0.5, 0.1], "smooseg": [0.8, 0.02]}.get(method.run.recipe.method)
        found: list[Any] = [method.shifts_for(shares) if shares else method._mean().tolist()]
        if garbage and hasattr(method, "_mean"):
            method.backbone.center.copy_(method._mean())
        seed_all(0)  # as the loop does: dropout is drawn from everybody's generator
        for stage in method.stages():
            stage.before_epoch(0)
            for batch in stage.batches(0):
                terms = stage.loss(batch)
                found.append({name: value.item() for name, value in terms.items()})
                sum(value for name, value in terms.items() if not name.startswith("log/")).backward()
                stage.after_step()
        return [*found, [p.grad.tolist() for p in method.parameters() if p.grad is not None]]

    assert losses(0) == losses(7)


def test_picie_clusters_and_labels_pixels_with_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = MiniBatchKMeans.add
    monkeypatch.setattr(MiniBatchKMeans, "add", lambda self, points: (given.append(len(points)), real(self, points)))
    method = make(small_run(tmp_path, *PICIE, images=halves(tmp_path / "images")))
    (stage,) = method.stages()
    stage.before_epoch(0)
    labels = np.load(next((tmp_path / "run" / "cache" / "labels").iterdir()))
    known = labels != 255
    assert sum(given) == known.sum()
    assert 0.2 < known.mean() < 0.8
    assert (known[:, :, 0] == known[:, :, 1]).all()  # both views show one crop
    for batch in stage.batches(0):
        assert all(torch.isfinite(value) for value in stage.loss(batch).values())
    batch["labels"][:] = 255
    assert all(value.item() == 0 for name, value in stage.loss(batch).items() if not name.startswith("log/"))
    given.clear()
    method.centroids()
    assert sum(given) == 8 * (~gap(method.side)).sum()


def test_codes_for_kmeans_are_of_cells_with_data(tmp_path: Path) -> None:
    run = small_run(tmp_path, *STEGO, images=halves(tmp_path / "images"))
    network = make(run).encoder()
    assert len(sample(network, input_spec(network, 64), run)) == 8 * 8  # of 4 × 4 cells each


def test_san_sees_no_region_without_data(tmp_path: Path) -> None:
    method = make(small_run(tmp_path, "method=san", "backbone.name=test_resnet", "san.code_dim=32", "san.batch_size=4",
                            images=halves(tmp_path / "images")))  # fmt: skip
    (stage,) = method.stages()
    batch = next(iter(stage.batches(0)))
    assert 0.2 < (batch["ids"] < 0).float().mean() < 0.8
    batch["colors"][(batch["ids"] < 0)[:, None].expand_as(batch["colors"])] = 0.0
    first = {name: value.item() for name, value in stage.loss(batch).items()}
    batch["colors"][(batch["ids"] < 0)[:, None].expand_as(batch["colors"])] = 9.0
    assert {name: value.item() for name, value in stage.loss(batch).items()} == first


# Regions


def test_regions_are_of_pixels_with_data(tmp_path: Path) -> None:
    cache = open_regions(halves(tmp_path / "images", 4).paths, REGIONS, tmp_path / "cache", quiet())
    assert (cache.regions[:, :, :, :32] == NO_REGION).all()
    assert (cache.regions[:, :, :, 32:] < cache.counts[:, :, None, None]).all()
    codes = region_codes(lambda pixels: pixels.movedim(-1, 1).float()[:, :, ::4, ::4], cache)
    assert codes.center[:, 1].min() > 0.5
    batch = views.draw(cache, PretrainOptions(batch_size=4, regions=REGIONS), 0)
    assert batch.count == cache.counts.max()
    assert 0.1 < (batch.ids < 0).float().mean() < 0.9


def test_clusterings_agree_on_cells_with_data(tmp_path: Path) -> None:
    cache = open_regions(halves(tmp_path / "images", 4).paths, REGIONS, tmp_path / "cache", quiet())
    codes = region_codes(lambda pixels: pixels.movedim(-1, 1).float()[:, :, ::4, ::4], cache)
    runs = [cluster_regions(codes.at(s), cache, 3, (16, 16), position=0.0, seed=s) for s in (0, 1)]
    for run in runs:
        assert (run[:, :, :8] == 3).all()
        assert run[:, :, 8:].max() < 3
    found = consensus(runs, 3)
    assert found.soft[:, :, :, :8].eq(0).all()
    assert found.soft[:, :, :, 8:].sum(1).allclose(torch.ones(1))
    assert found.agreement == agreement(runs[0][:, :, 8:], runs[1][:, :, 8:], 3)


# Scores


@pytest.mark.parametrize("protocol", ["served", "crop"])
def test_gaps_are_ignored_where_labels_are_scored(tmp_path: Path, protocol: Any) -> None:
    images = halves(tmp_path / "images", 4)
    (tmp_path / "labels").mkdir()
    for path in images.paths:
        Image.fromarray(np.ones((64, 64), np.uint8)).save(tmp_path / "labels" / path.name)
    image, labels, whole = Labelled(with_labels(images, tmp_path / "labels"), 2, protocol, (32, 32))[0]
    side = labels.shape[1]
    assert image.shape[:2] == labels.shape
    assert not whole
    assert (labels[:, : side // 2] == 255).all()
    assert (labels[:, side // 2 :] == 1).all()


# Whole runs


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def streets(folder: Path, write: Callable[[Path, np.ndarray, np.ndarray], object], count: int = 6) -> Path:
    """Drawn streets of 64 × 80 whose left half, bool [64, 80], holds no data."""
    folder.mkdir()
    for i in range(count):
        write(folder / f"{i}.tif", street((64, 80), i), np.broadcast_to(np.arange(80) < 40, (64, 80)))
    return folder


def nan(path: Path, image: np.ndarray, hole: np.ndarray) -> None:
    tifffile.imwrite(path, np.where(hole[..., None], np.nan, image / 255).astype(np.float32), photometric="rgb")


def infrared(path: Path, image: np.ndarray, hole: np.ndarray) -> None:
    four = np.dstack([image, image[..., :1] // 2])
    tifffile.imwrite(path, four, photometric="rgb", extrasamples=["unspecified"])


SMALL = ["backbone.weights=random", "backbone.name=test_resnet", "input.train_size=64", "input.size=64", "clusters.k=3",
         "workers=0", "export.name=gaps"]  # fmt: skip
RUNS = [
    ("stego", ["stego.steps=2", "stego.batch_size=4", "stego.centroids=kmeans"]),
    ("picie", ["picie.epochs=1", "picie.carry_centroids=true"]),
    ("stego", ["stego.steps=2", "stego.batch_size=4", "stego.centroids=kmeans", "clusters.unit=region",
               "clusters.region_scales=[20.0]"]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "overrides"), RUNS)
def test_no_cluster_is_made_of_gaps(tmp_path: Path, method: str, overrides: list[str]) -> None:
    """Shares are of pixels with data, and so each of three clusters has some: none has gone to the gaps."""
    data = streets(tmp_path / "photos", nan)
    train.command(out=tmp_path / "run", data=data, method=method, override=[*SMALL, *overrides], device="cpu")
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    fractions = [cluster.fraction for cluster in bundle.manifest.clusters]
    assert min(fractions) > 0
    images, network = datasets.open("folder", data, console=quiet()), Exported(bundle.encoder_bytes())
    counts = np.zeros(3)
    for i in range(len(images)):
        labels = segment(bundle, network, images[i])
        counts += np.bincount(labels[:, 40:].ravel(), minlength=3) / labels[:, 40:].size
    assert fractions == pytest.approx((counts / counts.sum()).tolist(), abs=0.05)  # measured at the network's size


def test_bands_go_from_the_recipe_through_reading_into_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = streets(tmp_path / "photos", infrared)
    asked = [*SMALL, *RUNS[0][1], "data.bands=[4,3,2]"]
    train.command(out=tmp_path / "run", data=data, method="stego", override=asked, device="cpu")
    assert capsys.readouterr().err.count("of 4 bands, 1 is left out") == 1  # not once an image
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.manifest.input.bands == (4, 3, 2)
    golden, shown = bundle.golden.image, [street((64, 80), i) for i in range(6)]
    wanted = [np.dstack([image[..., 0] // 2, image[..., 2], image[..., 1]]) for image in shown]
    assert any(np.array_equal(golden, image) for image in wanted)
    (tmp_path / "labels").mkdir()
    for path in data.iterdir():
        labels = np.broadcast_to(np.arange(80) < 40, (64, 80)).astype(np.uint8)
        (tmp_path / "labels" / f"{path.stem}.png").write_bytes(encode(labels, "png"))
    images, *_ = evaluate.open_images(data, None, "val", tmp_path / "labels", bands=bundle.manifest.input.bands)
    assert np.array_equal(images[0], wanted[0])
    evaluate.command(tmp_path / "run", data, tmp_path / "labels", out=tmp_path / "scores", device="cpu", workers=1)
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["failed"] == []


def test_bands_that_are_not_there_are_told_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = streets(tmp_path / "photos", infrared, count=4)
    with pytest.raises(DataError, match="0 readable images"):
        datasets.open("folder", data, bands=(5, 3, 2), console=(said := quiet()))
    assert said.file.getvalue().count("skipped 0.tif: bands 5,3,2: this picture has the bands 1 to 4") == 1  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"0\.tif: bands 5,3,2: this picture has the bands 1 to 4"):
        open_regions(sorted(data.iterdir()), RegionOptions(bands=(5, 3, 2)), tmp_path / "cache", quiet())
    with pytest.raises(typer.Exit):
        pretrain.main([data], tmp_path / "weights.safetensors", bands="4,3")
    assert "--bands 4,3: write one number" in capsys.readouterr().out


def test_other_bands_are_other_features_and_regions(tmp_path: Path) -> None:
    data = streets(tmp_path / "photos", infrared, count=4)
    seen = []
    for bands in (None, (4, 3, 2)):
        images = datasets.open("folder", data, bands=bands, console=quiet())
        run, backbone = small_run(tmp_path, images=images), Patches()
        open_features(encoder(backbone), OPTIONS, run)
        seen.append((backbone.seen, run.regions(REGIONS).images[0].tolist()))
    assert [count for count, _ in seen] == [4, 4]
    assert seen[0][1] != seen[1][1]


def test_an_image_with_next_to_no_data_is_skipped(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", 6)
    cut(images.paths[2], slice(0, 64))
    found = datasets.open("folder", images.root, console=quiet())
    assert [(one.path.name, one.reason) for one in found.skipped] == [
        ("2.png", "0.00% of its pixels hold data; 1% must")
    ]
