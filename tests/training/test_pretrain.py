"""training/pretrain.py and training/data/augment.py: what is drawn, what is minimized, what is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from typer.testing import CliRunner

from models.nets.backbone import build
from training.data.augment import ViewOptions, crop, draw_crops, relight
from training.data.regions import RegionCache, RegionOptions
from training.pretrain import find_images, main
from training.pretraining.contrastive import PretrainError, PretrainOptions, contrast, draw, rate, save, train

ROOT = Path(__file__).resolve().parents[2]
QUIET = Console(quiet=True)
TINY = PretrainOptions(
    dim=16,
    steps=6,
    rounds=2,
    batch_size=4,
    regions_per_image=4,
    min_cells=1,
    clusters=2,
    views=ViewOptions(size=(32, 32)),
    regions=RegionOptions(size=(48, 64), scales=(100.0,)),
)


def quarters(n: int = 6) -> RegionCache:
    """Images of four flat regions."""
    random = np.random.default_rng(0)
    ids = np.zeros((n, 1, 48, 64), np.uint16)
    ids[:, :, 24:] += 2
    ids[:, :, :, 32:] += 1
    colors = random.integers(0, 255, (n, 4, 3), dtype=np.uint8)
    images = np.stack([colors[i][ids[i, 0]] for i in range(n)])
    return RegionCache(tuple(Path(f"{i}.png") for i in range(n)), images, ids, np.full((n, 1), 4))


def test_views_and_ids_are_cut_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.arange(64.0).expand(1, 1, 48, 64).repeat(5, 1, 1, 1)
    crops = draw_crops(5, ViewOptions(), generator)
    smooth, ids = crop(ramp, crops, (32, 32)), crop(ramp, crops, (32, 32), nearest=True)
    assert (smooth - ids).abs().max() <= 0.51
    assert set(ids.unique().tolist()) <= set(range(64))
    assert crops[:, 0, 0].sign().unique().numel() == 2  # some are mirrored


def test_a_view_of_the_whole_is_the_image() -> None:
    image = torch.rand(2, 3, 16, 20)
    whole = ViewOptions(area=(1, 1), aspect=1, mirror=0)
    torch.testing.assert_close(crop(image, draw_crops(2, whole, torch.Generator()), (16, 20)), image)


def test_light_that_does_not_change_changes_nothing() -> None:
    image = torch.rand(3, 3, 8, 8)
    same = ViewOptions(jitter=0, gamma=0, hue=0, gray=0, blur=0)
    torch.testing.assert_close(relight(image, same, torch.Generator()), image, atol=1e-4, rtol=0)
    gray = relight(image, ViewOptions(jitter=0, gamma=0, hue=0, gray=1, blur=0), torch.Generator())
    assert (gray.amax(1) - gray.amin(1)).max() < 1e-2


def test_contrast_pulls_pairs_and_spares_the_group() -> None:
    apart = torch.eye(4)
    assert contrast(apart, apart) < 1e-3 < contrast(apart, apart.roll(1, 0))
    twins = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert contrast(twins, twins) > 0.4  # two alike rows can not be told apart …
    assert contrast(twins, twins, torch.tensor([0, 0, 1])) < 1e-3  # … and need not be in one group
    assert contrast(twins, twins, torch.tensor([-1, -1, -1])) > 0.4


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    cache = quarters()
    one, again, later = draw(cache, TINY, 3), draw(cache, TINY, 3), draw(cache, TINY, 4)
    assert torch.equal(one.views, again.views)
    assert torch.equal(one.ids, again.ids)
    assert not torch.equal(one.views, later.views)
    seen = [i for step in range(3) for i in draw(cache, TINY, step).images.tolist()]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))  # every image once an epoch


def test_the_rate_climbs_and_falls_in_every_round() -> None:
    options = PretrainOptions(steps=200, rounds=2, lr=1.0, warmup=0.1)
    rates = [rate(step, options) for step in range(200)]
    assert max(rates[:100]) == pytest.approx(1, abs=0.01)
    assert rates[:100] == rates[100:]
    assert rates[0] == pytest.approx(0.1)
    assert rates[99] == pytest.approx(0, abs=1e-3)


def test_a_run_stopped_and_resumed_ends_at_the_same_weights(tmp_path: Path) -> None:
    cache, device = quarters(), torch.device("cpu")
    whole, losses = train(cache, TINY, device, QUIET)
    partial = tmp_path / "partial"

    class Stop(Exception):
        pass

    def stop_after(step: int) -> None:
        from training.pretraining import contrastive as module

        real = module.draw

        def drawn(cache: RegionCache, options: PretrainOptions, at: int) -> object:
            if at == step:
                raise Stop
            return real(cache, options, at)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "draw", drawn)
            with pytest.raises(Stop):
                train(cache, TINY, device, QUIET, resume=partial, save_every=2)

    stop_after(5)  # the second round is under way: its groups must survive too
    resumed, again = train(cache, TINY, device, QUIET, resume=partial, save_every=2)
    assert again == losses
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    with pytest.raises(PretrainError, match="other images or options"):
        train(cache, TINY.model_copy(update={"seed": 1}), device, QUIET, resume=partial)


def test_the_file_written_is_the_backbone_read(tmp_path: Path) -> None:
    network, losses = train(quarters(), TINY, torch.device("cpu"), QUIET)
    out = tmp_path / "backbone.safetensors"
    save(network, TINY, losses, 6, out)
    backbone = build("resnet10t", out).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(pixels), network.backbone(pixels))
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    assert facts["backbone"] == "resnet10t"
    assert facts["images"] == "6"
    assert PretrainOptions.model_validate_json(facts["options"]) == TINY
    assert list(tmp_path.iterdir()) == [out]


def test_folders_without_images_say_so(tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match="at least 2"):
        find_images([tmp_path])
    with pytest.raises(PretrainError, match="no folder"):
        find_images([tmp_path / "absent"])


def test_the_command_writes_a_backbone(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(3):
        pixels = random.integers(0, 255, (3, 4, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "runs" / "b.safetensors"
    few = ["--steps", "1", "--rounds", "1", "--batch-size", "2", "--out", str(out)]
    done = CliRunner().invoke(app, ["--data", str(tmp_path), *few])
    assert done.exit_code == 0, done.output
    assert "3 images, 1 steps" in done.output
    assert out.exists()
    assert not out.with_name("b.safetensors.partial").exists()
    wrong = CliRunner().invoke(app, ["--data", str(tmp_path / "no"), *few])
    assert wrong.exit_code == 2
    assert "no folder" in wrong.output


def test_the_script_starts_from_the_repository() -> None:
    command = [sys.executable, "training/pretrain.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout
