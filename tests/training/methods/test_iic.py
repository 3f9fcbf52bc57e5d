"""IIC on eight small images: its views, its losses, what it serves, and that it does not collapse."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.errors import TesseraError
from models.nets.encoder import Encoder
from tests.training.gaps import gap, halves
from tests.training.small_run import make, small_run
from training.data.preprocess import input_spec
from training.discovery.discover import discover
from training.export.corpus_stats import measure
from training.losses.mutual_information import mutual_information
from training.trainer import loop

SMALL = ["method=iic", "backbone.name=test_resnet", "iic.batch_size=4", "iic.steps=2", "input.size=96"]
UNLIT = ["iic.jitter=0", "iic.hue=0"]


def test_two_steps(tmp_path: Path) -> None:
    run = small_run(tmp_path, *SMALL)
    method = make(run)
    loop.fit(method, method.stages(), run)
    line = loop.read_log(run.log)[-1]
    assert {"information", "overcluster", "log/sureness", "log/largest_cluster"} <= line.keys()
    assert torch.equal(method.centroids(), torch.eye(3))
    code = method.encoder().eval()(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8))
    assert code.shape == (2, 3, 16, 24)
    assert bool((code >= 0).all())
    torch.testing.assert_close(code.sum(1), torch.ones(2, 16, 24))


def test_batches_depend_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    method = make(small_run(tmp_path, *SMALL))
    first, again, later = (list(method._batches(epoch)) for epoch in (3, 3, 4))
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        assert a.keys() == {"first", "second", "mirrored"}
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(first[0]["first"], later[0]["first"])
    other = make(small_run(tmp_path / "other", *SMALL, "seed=1", images=method.run.images))
    assert not torch.equal(first[0]["first"], next(iter(other._batches(3)))["first"])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_are_windows_at_the_scale_of_serving_and_their_mirror_images(tmp_path: Path, workers: int) -> None:
    """Without changes of light the second view is the first one, mirrored where `mirrored` says so."""
    method = make(small_run(tmp_path, *SMALL, *UNLIT, "input.size=72", f"workers={workers}"))
    for batch, numbers in zip(method._batches(0), method._order(0), strict=True):
        assert batch["first"].shape == (4, 3, 64, 64)
        for i, number in enumerate(numbers.tolist()):
            square = torch.from_numpy(method.squares.load(number, 72)[0].copy()).movedim(-1, 0).float() / 255
            windows = square.unfold(1, 64, 1).unfold(2, 64, 1)  # [3, rows, columns, 64, 64]
            assert bool((windows == batch["first"][i][:, None, None]).all(0).all(-1).all(-1).any())
            there = batch["second"][i].flip(-1) if batch["mirrored"][i] else batch["second"][i]
            torch.testing.assert_close(there, batch["first"][i], atol=1e-3, rtol=0)
    drawn = torch.cat([batch["mirrored"] for epoch in range(8) for batch in method._batches(epoch)])
    assert 0.25 < drawn.float().mean() < 0.75


class Colors(nn.Module):
    """Probabilities of three clusters that are a cell's color and nothing else."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features * 3).softmax(1)


def pooled(pixels: torch.Tensor) -> torch.Tensor:
    """What a backbone of stride 4 that sees each cell alone would say."""
    return nn.functional.avg_pool2d(pixels, 4)


def test_the_loss_is_the_information_of_a_loop_over_cells_with_mirroring_undone(tmp_path: Path) -> None:
    """Of a network that sees each cell alone, both views say the same of a place: the joint is its own square."""
    method = make(small_run(tmp_path, *SMALL, *UNLIT, "iic.displacement=5", "iic.overcluster=0", "iic.mirror=0.7"))
    encoder = method.network
    encoder.backbone.forward, encoder.head = pooled, Colors()
    batch = next(iter(method._batches(0)))
    assert 0 < batch["mirrored"].sum() < 4
    with torch.no_grad():
        found = method._loss(batch)
        cells = Colors()(pooled((255 * batch["first"] - encoder.mean) / encoder.std))
        informed = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                table = torch.zeros(3, 3)
                for row in range(16):
                    for column in range(16):
                        if 0 <= row + down < 16 and 0 <= column + right < 16:
                            table += cells[:, :, row, column].T @ cells[:, :, row + down, column + right]
                informed.append(float(mutual_information(table[None])))
    assert float(found["information"]) == pytest.approx(-sum(informed) / 9, abs=1e-3)
    assert "overcluster" not in found


def test_cells_without_data_count_for_nothing(tmp_path: Path) -> None:
    method = make(small_run(tmp_path, *SMALL, "input.size=64", images=halves(tmp_path / "images")))
    batch = next(iter(method._batches(0)))
    assert batch["valid"].tolist() == [(~gap(16)).tolist()] * 4
    method.network.backbone.forward = pooled  # cells alone: what is in the gap reaches no other cell
    method.network.head, method.second = Colors(), Colors()
    garbage = {name: value.clone() for name, value in batch.items()}
    garbage["first"][..., :32] = 0.7
    for view, mirrored in zip(garbage["second"], garbage["mirrored"], strict=True):
        view[..., 32:] = torch.where(mirrored, torch.tensor(0.7), view[..., 32:])
        view[..., :32] = torch.where(mirrored, view[..., :32], torch.tensor(0.7))
    with torch.no_grad():
        losses, others = method._loss(batch), method._loss(garbage)
    assert all(torch.equal(losses[name], others[name]) for name in losses)


def test_a_vit_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match=r"set backbone.name=vgg11_bn"):
        make(small_run(tmp_path, "method=iic", "backbone.name=vit_tiny_patch16_224"))


@pytest.mark.slow  # its last layers, which are left out, are drawn first
def test_the_papers_kind_of_network_is_the_front_of_a_vgg(tmp_path: Path) -> None:
    encoder = make(small_run(tmp_path, *SMALL, "backbone.name=vgg11_bn")).encoder()
    assert isinstance(encoder, Encoder)
    assert sum(isinstance(module, nn.Conv2d) for module in encoder.backbone.modules()) == 4
    assert (encoder.stride, encoder.backbone.channels) == (4, 256)


@pytest.mark.slow
def test_it_tells_sky_from_ground_and_does_not_collapse(tmp_path: Path) -> None:
    run = small_run(tmp_path, *SMALL, "input.size=64", "iic.steps=40", "input.train_size=48")
    method = make(run)
    loop.fit(method, method.stages(), run)
    found = discover(run, method)
    encoder, spec = found.encoder, input_spec(found.encoder, 64)
    seen = measure(found, spec, run.images, exemplars=0, device=run.device, console=run.console, workers=0)
    assert seen.entropy > 0.6
    with torch.inference_mode():
        labels = encoder(torch.from_numpy(run.images[0].copy())[None])[0].argmax(0)
    assert int(labels[1].mode().values) != int(labels[-2].mode().values)
