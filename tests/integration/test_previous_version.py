"""A run and a bundle of an earlier version: `--resume` ends where that version ended, and the bundle still answers.

`data/previous/` was made by commit 4cd3f64, with nothing of this file but `make`:

    run.zip             a run of eight steps, stopped by SIGTERM after the fifth, in the middle of an epoch
    end.safetensors     what that version learned when it went on with it
    bundle.zip          and the bundle it wrote

Its photos and its backbone are not kept: they are drawn here, by arithmetic that gives the same bytes everywhere.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file

from models.bundle import Bundle
from models.inference import segment, self_test
from models.nets.build import build
from models.preprocess import IMAGENET
from training import train
from training.evaluation.exported import Exported
from training.methods.stego import Stego

DATA = Path(__file__).parent / "data" / "previous"
RECIPE = [
    "backbone.name=test_resnet", "backbone.weights=tiny.safetensors", "input.train_size=64", "input.size=64",
    "stego.steps=8", "stego.batch_size=4", "stego.code_dim=8", "stego.nonlinear=false", "stego.shifts=auto",
    "stego.centroids=kmeans",
    "clusters.k=3", "export.exemplars=1", "export.name=previous", "workers=0",
]  # fmt: skip
LEARNED = ("module/network.head.", "module/probe.", "module/shifts")


def draw(folder: Path) -> None:
    """Six photos that no library's drawing or packing decides: BMP files, by whole numbers."""
    folder.mkdir()
    y, x = np.mgrid[:64, :64]
    for i in range(6):
        checks = ((x // (4 + i) + y // 8) % 2) * 180
        planes = [(3 * x + 40 * i) % 256, (4 * y + x * i) % 256, checks]
        Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(folder / f"{i}.bmp")


def backbone(file: Path) -> None:
    """Weights that are 0 or one of two values, so that what is kept of them packs well."""
    state = build("test_resnet", "random", levels=3).state_dict()
    for n, (name, tensor) in enumerate(sorted(state.items())):
        if tensor.ndim > 1:  # the others are of normalization, and as they are in every new network
            drawn = np.random.RandomState(n).randint(-8, 9, tensor.shape)  # the one stream that numpy never changes
            size = 2.0 ** round(np.log2(17 / (2 * drawn[0].size)) / 2)
            state[name] = torch.from_numpy((drawn // 8 * (drawn % 8 == 0) * size).astype(np.float32))
    save_file({name.removeprefix("body."): tensor.contiguous() for name, tensor in state.items()}, file)


def make(folder: Path) -> None:
    """What `data/previous/` holds, by whatever version of training/ is on the path."""
    os.chdir(folder)
    draw(folder / "photos")
    backbone(folder / "tiny.safetensors")
    stages, steps = Stego.stages, iter(range(1, 99))

    def stop() -> None:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    Stego.stages = lambda self: [replace(stage, after_step=stop) for stage in stages(self)]  # type: ignore[method-assign]
    with pytest.raises(typer.Exit):
        train.command(out=Path("run"), data=Path("photos"), override=RECIPE, device="cpu")
    Stego.stages = stages  # type: ignore[method-assign]
    shutil.copytree("run", "kept", ignore=lambda *_: ["cache"])
    facts = (folder / "kept" / "run.json").read_text()
    (folder / "kept" / "run.json").write_text(facts.replace(str(folder), ""))
    shutil.make_archive("run", "zip", "kept")
    train.command(out=Path("run"), resume=True, device="cpu")
    save_file(learned(folder / "run"), "end.safetensors")
    shutil.make_archive("bundle", "zip", "run/bundle")


def learned(run: Path) -> dict[str, torch.Tensor]:
    """Everything in a run's checkpoint that training decides; the frozen backbone is left out."""
    tensors = load_file(run / "checkpoints" / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(LEARNED)}


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stopped run, in the working folder, with its photos and its backbone where it looks for them."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos")
    backbone(tmp_path / "tiny.safetensors")
    shutil.unpack_archive(DATA / "run.zip", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_goes_on_to_where_its_own_version_went(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.command(out=begun, data=Path("photos"), resume=True, device="cpu")
    assert "going on at stage distill, step 5" in capsys.readouterr().err
    found, wanted = learned(begun), load_file(DATA / "end.safetensors")
    for name, value in wanted.items():
        # Without the optimizer's moments, or in another order of the photos, it is off by 8e-5 and more. The last bits
        # are the processor's, and what it is called does not tell it from others: equal bits are test_exact_resume's.
        assert float((found[name] - value).abs().mean()) < 1e-6, name
    steps = [json.loads(line)["step"] for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))
    now, then = Bundle.load(begun / "bundle"), bundle_of(begun.parent / "then")
    recipe, before = now.manifest.provenance.recipe, then.manifest.provenance.recipe
    for key, value in before.items():  # what it said is as it was; keys that came since stand beside it
        assert recipe[key].items() >= value.items() if isinstance(value, dict) else recipe[key] == value
    assert recipe["backbone"]["family"] == "dino"
    assert now.manifest.normalization == IMAGENET  # as that version had it, though timm's test_resnet has others
    assert np.abs(now.centroids - then.centroids).max() < 1e-4
    assert (now.golden.labels == then.golden.labels).mean() > 0.99


def bundle_of(folder: Path) -> Bundle:
    """What that version wrote."""
    shutil.unpack_archive(DATA / "bundle.zip", folder)
    return Bundle.load(folder)


def test_a_bundle_still_answers(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle")
    session = Exported(bundle.encoder_bytes())
    assert bundle.manifest.normalization is None
    assert len(np.unique(bundle.golden.labels)) == 3
    assert self_test(bundle, session) >= 0.99
    assert segment(bundle, session, np.asarray(bundle.golden.image)[:, :40]).shape == (64, 40)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
