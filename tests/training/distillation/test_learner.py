"""training/distillation/learner.py: the student's network, and what it learns."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.errors import UsageError
from tests.training.small_run import small_run
from training.data.preprocess import input_spec
from training.distillation import learner, lessons
from training.export.onnx import Deployed, to_onnx


def test_a_student_is_a_cnn(tmp_path: Path) -> None:
    run = small_run(tmp_path, "student.backbone=test_vit")
    with pytest.raises(UsageError, match=r"maps at strides 4 to 16, and test_vit is none: set student\.backbone to"):
        learner.untrained(run, 3, 8, "random")


def test_the_first_weights_are_the_seeds(tmp_path: Path) -> None:
    def weights(*overrides: str) -> list[torch.Tensor]:
        run = small_run(tmp_path, "student.backbone=test_resnet", *overrides)
        return list(learner.untrained(run, 3, 8, "random").state_dict().values())

    one, same, other = weights(), weights(), weights("seed=1")
    assert all(map(torch.equal, one, same))
    assert not all(map(torch.equal, one, other))


@pytest.mark.parametrize("position", [0.0, 0.5])
def test_its_code_has_the_teachers_dimensions_on_a_grid_of_four_pixels(tmp_path: Path, position: float) -> None:
    run = small_run(tmp_path, "student.backbone=test_resnet", f"student.position={position}")
    student = learner.untrained(run, 3, 8, "random").eval()
    with torch.inference_mode():
        code = learner.encoder(student)(torch.zeros(2, 64, 96, 3, dtype=torch.uint8))
    assert code.shape == (2, 8, 16, 24)
    assert learner.encoder(student).stride == 4
    assert (code[0, -2:, 0, 0].tolist() == pytest.approx([-0.46875, -0.4791667])) == bool(position)


def test_steps_are_as_many_as_the_images_ask_for(tmp_path: Path) -> None:
    run = small_run(tmp_path, "student.backbone=test_resnet")
    assert [learner.options(run, n).steps for n in (4, 400, 100_000)] == [400, 1000, 6000]
    fixed = small_run(tmp_path, "student.backbone=test_resnet", "student.steps=7", "student.sharpness=20")
    assert (learner.options(fixed, 4).steps, learner.options(fixed, 4).scale) == (7, 20.0)
    assert learner.options(fixed, 4).views.size == (48, 64)  # of 64 × 80, whole cells of 16


def test_the_code_is_learned_where_it_has_a_weight(tmp_path: Path) -> None:
    """One step towards a code that is everywhere the same: the student's own comes nearer."""
    run = small_run(tmp_path, "student.backbone=test_resnet", "student.weight_code=5", "student.steps=40")
    student = learner.untrained(run, 3, 8, "random").train()
    seen = lessons.stand_in(run, 3, 8, 8)
    stage = learner.stage(student, seen, run)
    optimizer = torch.optim.Adam(list(stage.groups))
    batch = next(iter(stage.batches(0)))
    told = []
    for _ in range(3):
        losses = stage.loss(batch)
        optimizer.zero_grad()
        (losses["distill"] + losses["code"]).backward()
        optimizer.step()
        told.append(float(losses["code"].detach()))
    assert told[-1] < told[0]
    run = small_run(tmp_path, "student.backbone=test_resnet")
    assert set(learner.stage(student, lessons.stand_in(run, 3, 8, 8), run).loss(batch)) == {"distill", "log/agreement"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_100", "regnetx_002"])
def test_small_cnns_are_exported_small(tmp_path: Path, name: str) -> None:
    run = small_run(tmp_path, f"student.backbone={name}")
    student = learner.untrained(run, 27, 70, "random").eval()
    found = learner.encoder(student)
    onnx = to_onnx(Deployed(found, student.unit_centroids().detach()), input_spec(found, 64))
    assert 0.5 < len(onnx) / 1e6 < 12
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    for height, width in ((64, 96), (128, 80)):
        pixels = np.random.default_rng(0).integers(0, 255, (1, height, width, 3), dtype=np.uint8)
        scores, code = session.run(["scores", "code"], {"pixels": pixels})
        assert scores.shape == (1, 27, height // 4, width // 4)
        with torch.inference_mode():
            np.testing.assert_allclose(code, found(torch.from_numpy(pixels)).numpy(), atol=1e-3, rtol=1e-3)
