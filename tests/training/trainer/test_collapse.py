"""Collapse is noticed while training and said once, with what would help; what goes well is not spoken of."""

import io

import pytest
import torch

from tests.training.small_run import make, small_run
from training.config import facts
from training.losses.collapse import signs
from training.trainer import loop
from training.trainer.collapse import Watch
from training.trainer.stage import Stage

STAGE = Stage("distill", 100, [], lambda _: [], lambda _: {}, remedy="stego.balance=auto")


def watched(folder, steps: range, **logged: float) -> tuple[Watch, str]:
    run = small_run(folder, "method=stego")
    watch = Watch(run)
    for step in steps:
        watch(STAGE, step, {f"log/{name}": torch.tensor(value) for name, value in logged.items()})
    file = run.console.file
    assert isinstance(file, io.StringIO)
    return watch, file.getvalue()


@pytest.mark.parametrize(
    ("logged", "text"),
    [
        ({"largest_cluster": 0.97}, "one cluster takes 97% of all places"),
        ({"code_similarity": 0.99}, "the codes of all places are alike (mean cosine 0.99)"),
        ({"knn_similarity": 0.0, "rand_similarity": -0.01, "self_near_1": 0.01}, "no two places have codes"),
    ],
)
def test_what_goes_wrong_is_said_once_with_what_helps(tmp_path, logged, text):
    _, said = watched(tmp_path, range(1, 101), **logged)
    assert said.count("warning") == 1
    assert text in said
    assert said.rstrip().endswith("what may help: --set stego.balance=auto")
    (noted,) = facts.noted(small_run(tmp_path, "method=stego"), "warnings")
    assert noted["text"].startswith(text)
    assert {k: noted[k] for k in ("stage", "step", "option")} == {
        "stage": "distill", "step": 30, "option": "stego.balance=auto",
    }  # fmt: skip


def test_neither_a_good_run_nor_its_beginning_nor_a_single_step_is_spoken_of(tmp_path):
    good = {"largest_cluster": 0.6, "code_similarity": 0.3, "knn_similarity": 0.0, "self_near_1": 0.2}
    assert watched(tmp_path, range(1, 101), **good)[1] == ""
    assert watched(tmp_path, range(1, 25), largest_cluster=1.0)[1] == ""
    watch, _ = watched(tmp_path, range(0), largest_cluster=1.0)
    for step, share in ((30, 1.0), (35, 0.5), (40, 1.0)):
        watch(STAGE, step, {"log/largest_cluster": torch.tensor(share)})
    assert facts.noted(small_run(tmp_path, "method=stego"), "warnings") is None


def test_signs_leave_out_what_holds_no_data():
    code = torch.tensor([[1.0, 0, 1, 1], [0, 1.0, 0, 0]]).view(1, 2, 1, 4)
    labels = torch.tensor([[[0, 1, 255, 0]]])
    found = signs(code, labels, labels != 255)
    assert float(found["log/largest_cluster"]) == pytest.approx(2 / 3)
    assert float(found["log/code_similarity"]) == pytest.approx((2 / 3) ** 2 + (1 / 3) ** 2)
    assert float(signs(torch.ones(2, 3, 4, 4))["log/code_similarity"]) == pytest.approx(1)


def test_a_stego_whose_shifts_attract_everything_is_told_of_its_balance(tmp_path):
    bad = [f"stego.shift_{term}=-0.9" for term in ("self", "knn", "rand")]
    own = ["method=stego", "backbone.name=test_resnet", "stego.code_dim=8", "stego.points=4", "stego.steps=60"]
    run = small_run(tmp_path, *own, *bad, "stego.lr=0.01")
    method = make(run)
    loop.fit(method, method.stages(), run)
    assert {one["option"] for one in facts.noted(run, "warnings")} == {"stego.balance=auto"}
