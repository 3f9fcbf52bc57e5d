"""training/pretrain.py and training/data/augment.py: what is drawn, what is minimized, what is written."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from models.errors import TesseraError
from models.nets.build import build
from models.preprocess import IMAGENET, Normalization
from training.data.augment import ViewOptions, crop, draw_crops, relight
from training.data.regions import RegionCache, RegionOptions
from training.pretrain import main
from training.pretraining import pretraining
from training.pretraining.infonce import contrast
from training.pretraining.options import PretrainOptions, SmallViewOptions, of_objective
from training.pretraining.pretraining import Pretraining, pretrain, rate, save, train
from training.pretraining.sigreg import SigregOptions
from training.pretraining.swav import SwavOptions
from training.pretraining.views import draw
from training.trainer import loop
from training.trainer.interruption import Interrupted
from training.trainer.loop import Workspace

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = PretrainOptions(
    backbone="test_resnet",
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


def place(folder: Path) -> Workspace:
    return Workspace(folder / "b.partial", folder / "log.jsonl", 0, Console(quiet=True), "again")


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    """A training that nothing stopped."""
    return train(quarters(), TINY, CPU, place(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    ("stop_after", "number"),
    # within a round; between two; within the second, whose groups count
    [(2, signal.SIGTERM), (3, signal.SIGINT), (5, signal.SIGTERM)],
)
def test_a_run_stopped_and_resumed_ends_at_the_same_weights(
    whole: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int, number: signal.Signals
) -> None:
    real = pretraining.draw

    def drawn(cache: RegionCache, options: PretrainOptions, step: int) -> object:
        if step == stop_after - 1:
            os.kill(os.getpid(), number)
        return real(cache, options, step)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "draw", drawn)
        with pytest.raises(Interrupted, match=rf"^stopped at stage pretraining, step {stop_after}; .*To go on: again$"):
            train(quarters(), TINY, CPU, place(tmp_path))
    resumed = train(quarters(), TINY, CPU, place(tmp_path))
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    lines = loop.read_log(tmp_path / "log.jsonl")
    assert [(line["stage"], line["step"]) for line in lines] == [("pretraining", step + 1) for step in range(6)]
    assert [line["loss"] for line in lines] == resumed.losses.tolist()


SMALL = SmallViewOptions(count=2, views=ViewOptions(size=(16, 16), area=(0.1, 0.4)))
OTHERS = [
    {"swav": SwavOptions(prototypes=4, queue=8, frozen_steps=2), "small": SMALL, "rounds": 1},
    {"sigreg": SigregOptions(directions=8), "small": SMALL, "rounds": 1},
    {"small": SMALL},
]


@pytest.mark.parametrize("other", OTHERS, ids=["swav", "sigreg", "infonce of many views"])
def test_every_objective_learns_and_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, object]
) -> None:
    options = TINY.model_copy(update={"steps": 5, **other})
    first, second = place(tmp_path / "whole"), place(tmp_path / "stopped")
    for where in (first, second):
        where.checkpoint.parent.mkdir()
    unbroken = train(quarters(), options, CPU, first)
    with torch.random.fork_rng(), monkeypatch.context() as patch:
        begun = Pretraining(quarters(), options, CPU).state_dict()
        patch.setattr(pretraining, "draw", lambda *given: _stop_at(3, *given))
        with pytest.raises(Interrupted, match=r"^stopped at stage pretraining, step 4; "):
            train(quarters(), options, CPU, second)
    resumed = train(quarters(), options, CPU, second)
    trained = [name for name, _ in unbroken.named_parameters()]
    for (name, value), again in zip(unbroken.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
        assert name not in trained or not torch.equal(value, begun[name]), name
    assert {line_name for line in loop.read_log(second.log) for line_name in line} >= {options.objective}


def _stop_at(step: int, cache: RegionCache, options: PretrainOptions, now: int) -> object:
    if now == step:
        os.kill(os.getpid(), signal.SIGTERM)
    return draw(cache, options, now)


def test_small_views_show_the_regions_of_their_image() -> None:
    """Every flat region has one color: a cell of a view, unlit, has that of its id."""
    still = ViewOptions(size=(16, 16), area=(0.1, 0.4), jitter=0, gamma=0, hue=0, gray=0, blur=0)
    cache = quarters()
    batch = draw(cache, TINY.model_copy(update={"small": SmallViewOptions(count=3, views=still)}), 0)
    assert batch.small_views.shape == (12, 3, 16, 16)
    assert batch.small_ids.shape == (12, 4, 4)
    colors = torch.stack([torch.from_numpy(np.array(cache.images[i, ::24, ::32])) for i in batch.images]).flatten(1, 2)
    wanted = colors.repeat(3, 1, 1).gather(1, batch.small_ids.flatten(1)[:, :, None].expand(-1, -1, 3)) / 255
    middles = batch.small_views[:, :, 1::4, 1::4].flatten(2).transpose(1, 2)
    assert ((middles - wanted).abs().amax(2) < 0.02).float().mean() > 0.7  # the others lie at a border
    assert torch.equal(draw(cache, TINY, 0).views, batch.views)  # drawn before them


def test_the_digest_of_infonce_is_that_of_before_there_were_others() -> None:
    """A checkpoint that an older version left goes on."""
    told = TINY.model_dump_json(exclude_none=True)
    assert not {"objective", "small", "swav", "sigreg"} & set(json.loads(told))
    assert pretraining._identity(quarters(), TINY).startswith("538b39dd280d")
    names = set(Pretraining(quarters(), TINY, CPU).state_dict())
    assert {name.partition(".")[0] for name in names} == {"network", "groups", "losses"}


def test_two_objectives_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="swav and sigreg are two objectives: leave one of them out"):
        PretrainOptions(swav=SwavOptions(), sigreg=SigregOptions())
    assert [PretrainOptions(**of_objective(name)).objective for name in ("infonce", "swav", "sigreg")] == [
        "infonce",
        "swav",
        "sigreg",
    ]


def test_a_checkpoint_of_other_images_or_options_is_refused(whole: Pretraining, tmp_path: Path) -> None:
    one_step = TINY.model_copy(update={"steps": 1})
    train(quarters(), one_step, CPU, place(tmp_path))
    for cache, options in ((quarters(), TINY), (quarters(5), one_step)):
        with pytest.raises(TesseraError, match="of other images or options: delete it, or give another --out"):
            train(cache, options, CPU, place(tmp_path))


def test_the_file_written_is_the_backbone_read(whole: Pretraining, tmp_path: Path) -> None:
    out = tmp_path / "backbone.safetensors"
    save(whole, out)
    backbone = build("test_resnet", out).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(pixels), whole.network.backbone(pixels))
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    assert facts["backbone"] == "test_resnet"
    assert facts["images"] == "6"
    assert Normalization.model_validate_json(facts["normalization"]) == IMAGENET == backbone.normalization
    assert PretrainOptions.model_validate_json(facts["options"]) == TINY
    assert list(tmp_path.iterdir()) == [out]


def test_a_checkpoint_of_before_the_loop_begins_anew(tmp_path: Path) -> None:
    one_step = TINY.model_copy(update={"steps": 1})
    said = io.StringIO()
    where = replace(place(tmp_path), console=Console(file=said, width=40))
    torch.save({"network": {}, "optimizer": {}, "identity": "", "history": [1.0], "groups": None}, where.checkpoint)
    pretrain(quarters(), one_step, CPU, where, tmp_path / "b.safetensors")
    assert f"{where.checkpoint} is of an older version: the pretraining begins anew\n" in said.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "log.jsonl"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(3):
        pixels = random.integers(0, 255, (3, 4, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


FEW = ["--backbone", "test_resnet", "--rounds", "1", "--batch-size", "2"]


def test_the_command_writes_a_backbone(photos: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "runs" / "b.safetensors"
    few = ["--steps", "1", *FEW, "--out", str(out)]
    done = CliRunner().invoke(app, ["--data", str(photos), *few])
    assert done.exit_code == 0, done.output
    assert "3 images, 1 steps" in done.output
    assert sorted(path.name for path in out.parent.iterdir()) == ["b.safetensors", "b.safetensors.log.jsonl", "cache"]
    again = CliRunner().invoke(app, ["--data", str(photos), *few])
    assert again.exit_code == 2
    assert "it is there already; name another file, or add --overwrite" in again.output
    assert CliRunner().invoke(app, ["--data", str(photos), *few, "--overwrite"]).exit_code == 0
    few[-1] += "1"
    assert CliRunner().invoke(app, ["--data", str(photos), *few, "--objective", "swav"]).exit_code == 0
    with safe_open(few[-1], "pt") as file:
        facts = PretrainOptions.model_validate_json(file.metadata()["options"])
    assert (facts.swav, facts.small, facts.rounds) == (SwavOptions(), SmallViewOptions(), 1)
    few[-1] += "2"
    for folder, said in ((tmp_path / "no", "is not a folder"), (tmp_path / "runs", "0 readable images")):
        wrong = CliRunner().invoke(app, ["--data", str(folder), *few])
        assert wrong.exit_code == 2
        assert said in wrong.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--steps", "0"], "--steps 0: input should be greater than or equal to 1"),
        (["--batch-size", "1"], "--batch-size 1: input should be greater than or equal to 2"),
        (["--bands", "0"], "--bands 0: write one number"),
        (["--out", "{photos}/0.png/b.safetensors"], "the folder cannot be made: file exists"),
        (["--out", "{photos}"], "a folder; name the file of weights to write in it"),
        (["--cache", "{photos}/0.png/c"], "0.png/c: the folder cannot be made: not a directory"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(photos: Path, tmp_path: Path, asked: list[str], said: str) -> None:
    app = typer.Typer()
    app.command()(main)
    command = [
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "b.safetensors"),
        *(s.format(photos=photos) for s in asked),
    ]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.output.split())


@pytest.mark.slow
def test_the_script_killed_by_sigterm_goes_on_to_the_same_bits(photos: Path, tmp_path: Path) -> None:
    """From the repository's root, as people type it; SIGTERM comes after the first of five steps."""
    app = typer.Typer()
    app.command()(main)
    command = ["--data", str(photos), "--steps", "5", *FEW, "--cache", str(tmp_path / "cache")]
    whole, out = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    assert CliRunner().invoke(app, [*command, "--out", str(whole)]).exit_code == 0
    script = subprocess.Popen(
        [sys.executable, "training/pretrain.py", *command, "--out", str(out)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    log = out.with_name("stopped.safetensors.log.jsonl")
    while script.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.02)
    script.send_signal(signal.SIGTERM)
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 130, said
    assert re.search(
        r"stopped at stage pretraining, step \d; the checkpoint is written\. To go on: the same command", said
    )
    assert not out.exists()
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert "going on at stage pretraining, step" in done.output
    wanted, found = load_file(whole), load_file(out)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
