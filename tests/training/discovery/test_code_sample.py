"""training/discovery/code_sample.py: what is kept of a run's codes, and that the same places are seen in every view."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.inference import Prediction
from models.nets.encoder import Encoder
from models.preprocess import fit
from tests.training.small_run import draw, small_run
from tests.training.toy_method import MeanColor
from training.data.images import Found, Images, read_image
from training.data.preprocess import input_spec
from training.discovery import code_sample
from training.discovery.code_sample import CodeSample, Remembered


class Everywhere:
    """A Predictor that says 7 of every place, and how often it was asked."""

    asked = 0

    def __call__(self, pixels, *, code=False):
        self.asked += len(pixels)
        found = np.full((len(pixels), 3, pixels.shape[1] // 8, pixels.shape[2] // 8), 7, np.float32)
        return Prediction(found, found)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(MeanColor(), nn.Identity())


@pytest.mark.parametrize("position", [0.0, 0.5])
def test_mirrored_and_cropped_images_show_the_same_places(tmp_path, encoder, position):
    encoder.position, encoder.flip_average = position, True
    run = small_run(tmp_path, images=draw(tmp_path / "photos", side=96))
    codes = code_sample.of_run(encoder, input_spec(encoder, 96), run)
    assert codes.views.shape[0] == 3
    assert codes.views.shape[2] == (5 if position else 3)
    assert len(codes.of) == codes.views.shape[1]
    torch.testing.assert_close(codes.views[1], codes.views[0])
    torch.testing.assert_close(codes.views[2], codes.views[0])
    assert encoder.flip_average


def test_a_kept_sample_is_read_again_and_only_for_the_same_network(tmp_path, encoder):
    run = small_run(tmp_path)
    spec = input_spec(encoder, 64)
    first = code_sample.of_run(encoder, spec, run)
    written = code_sample.path_of(run).stat().st_mtime_ns
    again = code_sample.of_run(encoder, spec, run)
    assert code_sample.path_of(run).stat().st_mtime_ns == written
    assert all(torch.equal(again.maps[name], found) for name, found in first.maps.items())
    assert torch.equal(again.points, first.points)
    encoder.normalize = True
    other = code_sample.of_run(encoder, spec, run)
    assert code_sample.path_of(run).stat().st_mtime_ns != written
    assert not torch.equal(other.points, first.points)


def test_a_damaged_sample_is_none(tmp_path):
    (tmp_path / "codes.safetensors").write_bytes(b"\0" * 100)
    assert CodeSample.load(tmp_path / "codes.safetensors", {}) is None
    assert CodeSample.load(tmp_path / "none.safetensors", {}) is None


def test_a_sample_that_cannot_be_kept_costs_the_sample_alone(tmp_path, encoder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(CodeSample, "save", full)
    run = small_run(tmp_path)
    assert len(code_sample.of_run(encoder, input_spec(encoder, 64), run).images) == 8
    assert "is not kept (No space left on device)" in run.console.file.getvalue()  # type: ignore[attr-defined]


def test_images_whose_codes_are_kept_are_not_computed(tmp_path, encoder):
    run, spec, network = small_run(tmp_path), input_spec(encoder, 64), Everywhere()
    codes = code_sample.of_run(encoder, spec, run)
    centroids = np.eye(3, dtype=np.float32)[:2]
    remembered = Remembered(codes, centroids, network)
    known = np.stack([fit(run.images[i], spec).pixels for i in (0, 1)])
    scores, code = remembered(known, code=True)
    assert network.asked == 0
    with torch.inference_mode():
        np.testing.assert_allclose(code, encoder(torch.from_numpy(known)).numpy(), atol=2e-3)
    np.testing.assert_array_equal(scores, code[:, :2])
    assert (remembered(255 - known).scores == 7).all()
    assert network.asked == 2


def test_places_without_data_are_in_no_sample(tmp_path, encoder):
    drawn = draw(tmp_path / "photos")
    half = np.zeros((64, 64), bool)
    half[:, :32] = True
    found = Found(drawn.paths, read=lambda path, bands: replace(read_image(path, bands), valid=half))
    run = small_run(tmp_path, images=Images(drawn.root, drawn.paths, found))
    codes = code_sample.sample(
        lambda pixels: encoder(torch.from_numpy(pixels[None]))[0],
        lambda pixels: encoder(torch.from_numpy(pixels[None].copy()))[0],
        input_spec(encoder, 64),
        run,
        code_sample.Grid(8, False),
    )
    assert len(codes.points) == 8 * 8 * 4
