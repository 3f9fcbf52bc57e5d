"""training/distillation/asked.py: what the two flags stand for, and what is refused before a photo is read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.bundle import Bundle
from models.errors import TesseraError
from tests.tiny import write_tiny_bundle
from training import methods
from training.config import recipe as recipes
from training.config.recipe import Recipe
from training.distillation import asked


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_tiny_bundle(tmp_path / "run" / "bundle")


def recipe(*overrides: str) -> Recipe:
    return recipes.parse({}, config_of=methods.config, overrides=overrides)


def test_a_file_of_weights_is_the_backbones_and_tells_its_name_where_it_can(tmp_path: Path) -> None:
    ours, other = tmp_path / "a b.safetensors", tmp_path / "c.pth"
    save_file({"w": torch.zeros(1)}, ours, {"backbone": "resnet50"})
    torch.save({}, other)
    assert asked.values(str(ours), "resnet10t", []) == [
        'student.backbone="resnet10t"', 'backbone.name="resnet50"', f'backbone.weights="{ours}"',
    ]  # fmt: skip
    assert asked.values(str(ours), "", ["backbone.name=resnet101"]) == [f'backbone.weights="{ours}"']
    assert asked.values(str(other), "", []) == [f'backbone.weights="{other}"']


def test_a_name_is_taken_from_the_hub_unless_weights_are_named() -> None:
    assert asked.values("test_vit", "", []) == ['backbone.name="test_vit"', 'backbone.weights="timm"']
    assert asked.values("test_vit", "", ["backbone.weights=random"]) == ['backbone.name="test_vit"']
    assert asked.values("", "", []) == []


def test_a_bundle_is_found_by_its_folder_and_by_its_runs(bundle: Bundle) -> None:
    wanted = [f'student.teacher="{bundle.path}"']
    assert asked.values(str(bundle.path), "", []) == wanted
    assert asked.values(str(bundle.path.parent), "", []) == wanted
    page = asked.page_for(bundle)
    assert page == {"input": {"size": 64}, "clusters": {"k": 5}}  # "mean color" is no method of ours
    made = recipes.parse(page, config_of=methods.config, overrides=[*wanted, "student.backbone=test_resnet"])
    asked.require_usable(made)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("none/weights.pth", r"--teacher none/weights\.pth: there is no such file or folder"),
        ("dino.pth", r"--teacher dino\.pth: there is no such file or folder"),
        ("vit_smal", r"--teacher vit_smal: neither a file, nor a folder, nor one of timm's; near it: "),
        ("empty", r"the teacher empty holds neither a bundle nor a run"),
        ("begun", r"the teacher begun has no bundle yet: let its training end first"),
    ],
)
def test_a_teacher_that_is_none_says_what_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("begun").mkdir()
    Path("begun", "run.json").write_text("{}")
    with pytest.raises(TesseraError, match=said):
        asked.values(teacher, "resnet10t", [])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student.backbone="], "a teacher without a student: add --student NAME"),
        (["student.backbone=resnt10t"], r"student\.backbone resnt10t: not one of timm's; near it: .*resnet10t"),
        (["student.backbone=test_vit"], r"test_vit is none: set student\.backbone to one, for instance resnet10t"),
        (["student.weights=gone.pth"], r"student\.weights gone\.pth: there is no such file; give .* or one of random"),
        (["clusters.k=7"], r"has 5 clusters, .* clusters\.k asks for 7: leave it out, or .*recluster RUN --k 7"),
        (["data.bands=[3,2,1]"], r"reads bands as each file says, and data\.bands asks for \[3, 2, 1\]"),
        (["export.align_to=x"], "keeps ids, names and colors of its teacher tiny@.*: leave --align-to out"),
        (["student.teacher=gone"], "the teacher gone: there is no such folder"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(bundle: Bundle, overrides: list[str], said: str) -> None:
    given = ["clusters.k=5", "student.backbone=test_resnet", f'student.teacher="{bundle.path}"']
    asked.require_usable(recipe(*given))
    with pytest.raises(TesseraError, match=said):
        asked.require_usable(recipe(*given, *overrides))
