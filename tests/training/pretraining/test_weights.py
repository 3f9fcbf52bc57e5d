"""Weights "auto": the hub where it answers, the run's own images where not, and never a long wait."""

from __future__ import annotations

import io
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image
from rich.console import Console

from models.nets.backbone import build
from training.config.recipe import BackboneSection, Recipe
from training.config.run import Run
from training.data.images import Images
from training.data.synthetic import street
from training.pretraining import contrastive, weights
from training.pretraining.contrastive import PretrainOptions


@pytest.fixture
def run(tmp_path: Path) -> Run:
    paths = []
    for i in range(4):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(street((96, 128), seed=i)).save(paths[-1])
    (tmp_path / "run").mkdir()
    recipe = Recipe(backbone=BackboneSection(weights="auto"), workers=0)
    console = Console(file=io.StringIO(), width=300)
    return Run(recipe, Images(tmp_path, paths), tmp_path / "run", torch.device("cpu"), console)


def said(run: Run) -> str:
    return run.console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_other_weights_are_left_as_they_are(run: Run) -> None:
    object.__setattr__(run, "recipe", Recipe())
    assert weights.settle(run) == BackboneSection()


def test_the_hub_is_taken_where_it_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "hub_has", lambda name: True)
    assert weights.settle(run) == BackboneSection(weights="timm")


def test_without_a_hub_a_backbone_is_pretrained_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    small = PretrainOptions(steps=2, batch_size=2, rounds=1)
    monkeypatch.setattr(weights, "hub_has", lambda name: False)
    monkeypatch.setattr(weights, "options_for", lambda recipe, images: small)
    found = weights.settle(run)
    assert found.name == small.backbone
    assert build(found.name, found.weights).channels == small.dim
    assert "a small resnet10t is pretrained on your images first, 2 steps" in said(run)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pretrained twice")

    monkeypatch.setattr(contrastive, "train", never)
    monkeypatch.setattr(weights, "hub_has", lambda name: True)  # the run began without; it stays with its own
    assert weights.settle(run) == found


def test_a_hub_that_never_answers_costs_no_more_than_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(5))
    before = time.monotonic()
    assert not weights.hub_has("vit_small_patch8_224.dino", patience_s=0.2)
    assert time.monotonic() - before < 2


def test_a_hub_that_refuses_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("proxy says no")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    assert not weights.hub_has("vit_small_patch8_224.dino")
    assert not weights.hub_has("no_such_network")


def test_weights_on_this_machine_need_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/model.safetensors")
    assert weights.hub_has("vit_small_patch8_224.dino")


def test_more_images_more_steps() -> None:
    def options(count: int) -> PretrainOptions:
        return weights.options_for(Recipe(seed=3), Images(Path(), [Path(str(i)) for i in range(count)]))

    assert options(5).batch_size == 5
    assert [options(n).steps for n in (5, 50, 120, 10_000)] == [120, 120, 240, 600]
    assert options(9).seed == 3
