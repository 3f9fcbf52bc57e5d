"""training/distillation/lessons.py: which images are learned from, what is kept of each, and going on after a stop."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import Prediction
from models.types import Array
from tests.tiny import CENTROIDS, MeanColor, write_tiny_bundle
from tests.training.gaps import cut
from tests.training.small_run import draw, small_run
from training.config.run import Run
from training.data.images import Images
from training.distillation import lessons
from training.distillation.lessons import held_out, open_lessons, split
from training.distillation.teacher import Teacher


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_tiny_bundle(tmp_path / "teacher")


def run_of(folder: Path, *overrides: str, images: Images | None = None) -> Run:
    return small_run(folder, "student.backbone=test_resnet", "clusters.k=5", *overrides, images=images)


@pytest.mark.parametrize("count", [4, 5, 8, 11, 37, 400, 12_345])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_stretches_of_neighbors_are_held_out(count: int, share: float) -> None:
    found = held_out(count, share)
    assert found == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < count
    assert len(found) == min(300, max(1, round(share * count)))
    gaps = sum(after > before + 1 for before, after in pairwise(found))
    assert gaps <= 4


def test_what_is_held_out_is_not_learned_from(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", 12, side=16)
    seen, never = split(images, 0.25, 1000)
    assert (len(seen), len(never)) == (9, 3)
    assert set(seen.paths).isdisjoint(never.paths)
    few, same = split(images, 0.25, 4)
    assert len(few) == 4
    assert set(few.paths) <= set(seen.paths)
    assert list(same.paths) == list(never.paths)


def slow(image: Array) -> torch.Tensor:
    """The teacher's probabilities [5, 16, 20] of an image of 64 × 80 pixels, in the papers' order and double precision:
    the code at every place, its length, its cosines."""
    blocks = torch.from_numpy(image).double().reshape(8, 8, 10, 8, 3).mean((1, 3)) / 127.5 - 1
    code = F.interpolate(blocks.movedim(-1, 0)[None], size=(16, 20), mode="bilinear", align_corners=False)[0]
    cosines = torch.einsum("kd,dhw->khw", torch.from_numpy(CENTROIDS).double(), F.normalize(code, dim=0))
    return (10 * cosines).softmax(0)


def test_lessons_are_the_teachers_probabilities(tmp_path: Path, bundle: Bundle) -> None:
    run = run_of(tmp_path, "student.weight_code=1")
    found = open_lessons(Teacher(bundle, MeanColor()), run)
    assert found.images.shape == (7, 64, 80, 3)
    assert found.soft.shape == (7, 5, 16, 20)
    for image, soft in zip(found.images, found.soft, strict=True):
        torch.testing.assert_close(soft.double(), slow(np.asarray(image)), atol=1e-3, rtol=0)
    assert found.code is not None
    assert found.code.shape == (7, 3, 8, 10)
    torch.testing.assert_close(found.code.float().norm(dim=1), torch.ones(7, 8, 10), atol=1e-3, rtol=0)
    planned = lessons.work(run, 5, 3, 8)
    kept = sum(file.stat().st_size for file in run.cache.rglob("*.npy"))
    assert planned.images == 7
    assert planned.disk_bytes == pytest.approx(kept, abs=1000)  # heads of files
    shape = lessons.stand_in(run, 5, 3, 8)
    assert (shape.images.shape, shape.soft.shape) == (found.images.shape, found.soft.shape)
    assert shape.code is not None
    assert shape.code.shape == found.code.shape


def test_what_holds_no_data_is_not_learned(tmp_path: Path, bundle: Bundle) -> None:
    images = draw(tmp_path / "images")
    cut(images.paths[0], slice(0, 32))
    found = open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path, images=images))
    total = found.soft.float().sum(1)
    assert (total[0, :, :9] == 0).all()
    assert (total[0, :, 11:] > 0.99).all()
    assert (total[1:] > 0.99).all()


class Counting:
    """A teacher's network that is stopped before its nth answer."""

    def __init__(self, answers: int) -> None:
        self.left, self.given = answers, 0

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        if self.given == self.left:
            raise KeyboardInterrupt
        self.given += 1
        return MeanColor()(pixels, code=code)


def test_a_stopped_pass_goes_on_and_ends_alike(tmp_path: Path, bundle: Bundle) -> None:
    whole = open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path / "whole"))
    run = run_of(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        open_lessons(Teacher(bundle, Counting(1 + 5)), run)  # one to know its shapes; five of seven rows
    again = Counting(100)
    found = open_lessons(Teacher(bundle, again), run)
    assert again.given == 1 + 3  # the first block of four was done
    assert torch.equal(found.soft, whole.soft)
    assert np.array_equal(found.images, whole.images)
    third = Counting(100)
    open_lessons(Teacher(bundle, third), run)
    assert third.given == 1


def test_another_teacher_or_sharpness_has_lessons_of_its_own(tmp_path: Path, bundle: Bundle) -> None:
    open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path))
    sharper = open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path, "student.sharpness=20"))
    assert len(list(tmp_path.glob("run/cache/lessons-*"))) == 2
    soft = open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path)).soft
    assert (sharper.soft.amax(1).mean() > soft.amax(1).mean()).item()


def test_a_disk_without_room_is_told(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(TesseraError, match=r"the lessons of 7 images take .* a smaller student\.images or input\.size"):
        open_lessons(Teacher(bundle, MeanColor()), run_of(tmp_path))
