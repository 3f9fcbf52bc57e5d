"""Weights "auto": the hub where it answers, the run's own images where not, and never a long wait."""

import io
import os
import signal
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image
from rich.console import Console

from models.nets.build import build
from training.config.recipe import BackboneSection, Recipe
from training.config.run import Run
from training.data.augment import ViewOptions
from training.data.images import Images
from training.data.regions import RegionOptions
from training.data.synthetic import street
from training.export import provenance
from training.pretraining import pretraining, weights
from training.pretraining.options import PretrainOptions
from training.trainer.interruption import Interrupted
from training.trainer.loop import read_log


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


def test_what_a_licence_asks_is_told_at_the_start(run: Run) -> None:
    asked = BackboneSection(name="vit_small_patch16_dinov3.lvd1689m", weights="timm")
    object.__setattr__(run, "recipe", Recipe(backbone=asked))
    assert weights.settle(run) == asked
    assert "the licence of vit_small_patch16_dinov3.lvd1689m's weights, dinov3-license: Meta's own" in said(run)
    assert "That licence, dinov3-license: Meta's own" in provenance.notice(run)
    assert provenance.licence(run) == "dinov3-license (vit_small_patch16_dinov3.lvd1689m, by timm)"
    file = BackboneSection(name="vit_small_patch16_dinov3.lvd1689m", weights="dinov3.pth")
    object.__setattr__(run, "recipe", Recipe(backbone=file))
    assert provenance.licence(run).startswith("unknown; of what timm calls vit_small_patch16_dinov3.lvd1689m, dinov3-")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> PretrainOptions:
    """No hub answers, and a pretraining is a matter of two steps."""
    torch.set_num_threads(1)
    small = PretrainOptions(
        backbone="test_resnet", steps=2, batch_size=2, rounds=1,
        views=ViewOptions(size=(32, 32)), regions=RegionOptions(size=(48, 64), scales=(100.0,)),
    )  # fmt: skip
    monkeypatch.setattr(weights, "hub_has", lambda name: False)
    monkeypatch.setattr(weights, "options_for", lambda recipe, images: small)
    return small


def test_without_a_hub_a_backbone_is_pretrained_once(
    run: Run, no_hub: PretrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weights.settle(run)
    assert found.name == no_hub.backbone
    assert build(found.name, found.weights).channels == no_hub.dim
    assert "a small test_resnet is pretrained on your images first, 2 steps" in said(run)
    assert [(line["stage"], line["step"]) for line in read_log(run.log)] == [("pretraining", 1), ("pretraining", 2)]
    assert {path.name for path in run.folder.iterdir()} == {
        "backbone.safetensors",
        "cache",
        "metrics.jsonl",
        "tensorboard",
    }

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pretrained twice")

    monkeypatch.setattr(weights, "pretrain", never)
    monkeypatch.setattr(weights, "hub_has", lambda name: True)  # the run began without; it stays with its own
    assert weights.settle(run) == found


def test_a_run_stopped_while_pretraining_goes_on_with_it(
    run: Run, no_hub: PretrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretraining.draw
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "draw", lambda *given: os.kill(os.getpid(), signal.SIGTERM) or real(*given))
        with pytest.raises(Interrupted, match=r"stage pretraining, step 1; .*tessera train --out .*/run --resume"):
            weights.settle(run)
    assert weights.settle(run).name == no_hub.backbone
    assert "going on at stage pretraining, step 1" in said(run)


def test_a_run_that_an_older_version_left_while_pretraining_begins_it_anew(run: Run, no_hub: PretrainOptions) -> None:
    left = run.folder / "backbone.partial"
    torch.save({"network": {}, "optimizer": {}, "identity": "", "history": [1.0], "groups": None}, left)
    assert weights.settle(run).name == no_hub.backbone
    assert f"{left} is of an older version: the pretraining begins anew\n" in said(run)
    assert not left.exists()


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over, answered = threading.Event(), threading.Event(), threading.Event()

    def never(*_: object, **__: object) -> None:
        asked.set()
        over.wait(60)
        answered.set()

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", never)
    assert not weights.hub_has("vit_small_patch8_224.dino", patience_s=0.2)
    assert asked.is_set()
    assert not answered.is_set()
    over.set()


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
