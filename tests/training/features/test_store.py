"""Features on disk: computed once, whatever happens, and never mistaken for others."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import TesseraError
from models.nets.backbone import Backbone
from models.nets.encoder import Encoder
from models.preprocess import Normalization
from tests.training.small_run import draw, small_run
from training.features.store import FeatureOptions, open_features

OPTIONS = FeatureOptions(batch_size=3, precision="float32")


class Patches(Backbone):
    """Mean colors of 16×16 pixels; counts the crops it saw, and fails after `patience` of them."""

    channels, stride = 3, 16

    def __init__(self, patience: int = 10**6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen, self.patience = 0, patience

    def forward(self, x):
        if self.seen + len(x) > self.patience:
            raise KeyboardInterrupt
        self.seen += len(x)
        return self.scale * nn.functional.avg_pool2d(x, 16)


def encoder(backbone: Backbone) -> Encoder:
    return Encoder(backbone, nn.Identity())


@pytest.mark.parametrize("five_crop", [False, True])
def test_the_backbone_never_sees_a_crop_twice(tmp_path, five_crop):
    run, options = small_run(tmp_path), replace(OPTIONS, five_crop=five_crop)
    first, second = Patches(), Patches()
    found = open_features(encoder(first), options, run)
    again = open_features(encoder(second), options, run)
    assert first.seen == len(found) == (40 if five_crop else 8)
    assert second.seen == 0
    assert np.array_equal(found.maps, again.maps)
    assert np.array_equal(found.neighbors, again.neighbors)


@pytest.mark.parametrize("five_crop", [False, True])
def test_a_killed_computation_goes_on_where_it_was(tmp_path, five_crop):
    options = replace(OPTIONS, five_crop=five_crop)
    whole_run, run = small_run(tmp_path / "whole"), small_run(tmp_path / "killed")
    whole = open_features(encoder(Patches()), options, whole_run)
    killed, rest = Patches(patience=len(whole) // 2), Patches()
    with pytest.raises(KeyboardInterrupt):
        open_features(encoder(killed), options, run)
    resumed = open_features(encoder(rest), options, run)
    assert 0 < killed.seen < len(whole)
    assert killed.seen + rest.seen == len(whole)
    assert np.array_equal(whole.maps, resumed.maps)
    assert np.array_equal(whole.neighbors, resumed.neighbors)


def test_other_weights_sizes_or_images_are_other_features(tmp_path):
    run = small_run(tmp_path)
    open_features(encoder(Patches()), OPTIONS, run)
    other = Patches()
    other.scale.data += 1
    darker = Patches()
    darker.normalization = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
    changes = (
        (other, run),
        (darker, run),
        (Patches(), small_run(tmp_path, "input.train_size=32", images=run.images)),
        (Patches(), small_run(tmp_path, "input.interpolation=nearest", images=run.images)),
        (Patches(), small_run(tmp_path, images=draw(tmp_path / "images", count=9))),
    )
    for backbone, changed in changes:
        found = open_features(encoder(backbone), OPTIONS, changed)
        assert backbone.seen == len(found)


def test_batches_are_float32_whatever_the_disk_holds(tmp_path):
    run = small_run(tmp_path)
    exact = open_features(encoder(Patches()), OPTIONS, run)
    half = open_features(encoder(Patches()), replace(OPTIONS, precision="float16"), run)
    picked = half.batch([5, 0], torch.device("cpu"))
    assert half.maps.dtype == np.float16
    assert picked.dtype == torch.float32
    assert torch.allclose(picked, exact.batch([5, 0], torch.device("cpu")), atol=5e-3)


def test_a_size_that_does_not_divide_names_one_that_does(tmp_path):
    run = small_run(tmp_path, "input.train_size=72")
    with pytest.raises(TesseraError, match=r"input.train_size to 64"):
        open_features(encoder(Patches()), OPTIONS, run)


def test_what_an_earlier_release_had_computed_is_not_computed_again(tmp_path):
    run = small_run(tmp_path)
    whole = open_features(encoder(Patches()), OPTIONS, run)
    wanted = np.array(whole.maps)
    (folder,) = run.cache.glob("features-*")
    for name in ("done.npy", "neighbors.npy"):
        (folder / name).unlink()
    (folder / "done").write_text("6")  # crops; two batches of three
    rest = Patches()
    resumed = open_features(encoder(rest), OPTIONS, run)
    assert rest.seen == 2
    assert np.array_equal(resumed.maps, wanted)
    assert np.array_equal(resumed.neighbors, whole.neighbors)


def test_a_disk_that_is_too_small_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TesseraError, match=r"take 0.0 GB .* smaller input.train_size"):
        open_features(encoder(Patches()), OPTIONS, small_run(tmp_path))


class Placed(Patches):
    """Mean colors, two channels that say where a patch is and a little of what it shows, and one that is always 1."""

    channels = 6

    def forward(self, x):
        colors = super().forward(x)
        rows = torch.linspace(-1, 1, colors.shape[2])[:, None].expand(colors.shape[2:])
        columns = torch.linspace(-1, 1, colors.shape[3])[None].expand(colors.shape[2:])
        place = torch.stack([rows, columns]).expand(len(x), -1, -1, -1)
        return torch.cat([colors, 0.1 * place + 3 * colors.square()[:, :2], torch.ones_like(colors[:, :1])], 1)


def test_neighbors_are_those_of_means_without_what_says_where_a_place_is(tmp_path):
    run = small_run(tmp_path)
    plain = open_features(encoder(Placed()), OPTIONS, run)
    again = Placed()
    found = open_features(encoder(again), replace(OPTIONS, debias="auto"), run)
    assert again.seen == 1  # the image of one color; features are the same
    assert np.array_equal(found.maps, plain.maps)
    for kept, taken in ((plain, ()), (found, (3, 4))):
        means = np.stack([one.mean((1, 2)) for one in kept.maps[:].astype(np.float64)])
        means[:, list(taken)] = 0
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, 2)
        assert np.array_equal(kept.neighbors, np.argsort(-cosines, axis=1))
    assert not np.array_equal(found.neighbors, plain.neighbors)
    with pytest.raises(TesseraError, match="debias = 4: of an image of one color 6 channels at 4×4"):
        open_features(encoder(Placed()), replace(OPTIONS, debias=4), run)
