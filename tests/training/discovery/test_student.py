"""training/discovery/student.py: teaching soft label maps to a network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.data.augment import ViewOptions
from training.discovery.student import DistillOptions, Student


class Colors(nn.Module):
    """A network of one 1×1 convolution at a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        code: Tensor = self.mix(pixels.movedim(-1, 1)[:, :, ::4, ::4].float() / 127.5 - 1)
        return code


def test_a_student_learns_the_soft_labels_and_its_rate_falls_to_nothing() -> None:
    torch.manual_seed(0)
    labels = torch.randint(2, (8, 4, 4))
    images = (labels * 255).to(torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    soft = nn.functional.one_hot(labels, 2).movedim(-1, 1).float()
    views = ViewOptions(size=(32, 32), area=(1, 1), aspect=1, jitter=0.1, hue=0, gray=0, blur=0)
    options = DistillOptions(steps=60, lr=0.05, batch_size=4, views=views)
    student = Student(Colors(), 2)
    stage = student.stage(images[..., None].repeat(1, 1, 1, 3).numpy(), soft, options, seed=0)
    optimizer = torch.optim.Adam(list(stage.groups))
    epoch = 0
    while student.step < stage.steps:
        for batch in stage.batches(epoch):
            optimizer.zero_grad()
            out = stage.loss(batch)
            out["distill"].backward()
            optimizer.step()
            stage.after_step()
        epoch += 1
    assert out["log/agreement"] > 0.95
    assert stage.groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.unit_centroids().norm(dim=1), torch.ones(2))


def test_an_epoch_is_the_same_however_often_it_is_asked_for() -> None:
    options = DistillOptions(steps=2, batch_size=2, views=ViewOptions(size=(16, 16)))
    images = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    stage = Student(Colors(), 2).stage(images, torch.rand(4, 2, 4, 4), options, seed=3)
    for one, other in zip(stage.batches(1), stage.batches(1), strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["soft"], other["soft"])
    first, second = next(iter(stage.batches(0))), next(iter(stage.batches(1)))
    assert not torch.equal(first["pixels"], second["pixels"])
