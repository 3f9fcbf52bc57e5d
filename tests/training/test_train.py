"""`tessera train` as it is typed: what a folder is begun with, gone on with, refused for; every hint is tried."""

import errno
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.errors import TesseraError
from tests.tiny import write_tiny_bundle
from tests.training.small_run import SMALL, draw
from training import pipeline, train
from training.config.run import Run
from training.trainer import checkpoint, initial

TRAIN = pipeline.train
SMALLEST = ["--method", "picie", "--device", "cpu"]
for one in (*SMALL, "backbone.name=test_resnet", "picie.code_dim=8", "picie.epochs=1", "picie.batch_size=4"):
    SMALLEST += ["--set", one]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight photos and one that is none, in a folder with a space; the working folder is the one around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", ["python", "bin/pytest"])
    draw(tmp_path / "my photos")
    (tmp_path / "my photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return Path("my photos")


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """What a command line answers: its code, what it wrote to stdout and to stderr."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["tessera train", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            train.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=left.value.code, out=out, err=err)

    return run


def hint(text: str) -> list[str]:
    """The arguments of the command that a text ends with."""
    found = re.search(r"(?:to go on|to begin): tessera train (.*)", text)
    assert found, text
    return shlex.split(found[1])


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """In the place of training: the runs that came to it, each of which leaves a checkpoint."""
    runs: list[Run] = []

    def stand_in(run: Run) -> Any:
        runs.append(run)
        state = {f"module/{name}": value for name, value in pipeline.build(run).state_dict().items()}
        checkpoint.save(run.checkpoints / "last.safetensors", state, {"position": {}})
        return SimpleNamespace(path=run.folder / "bundle", manifest=SimpleNamespace(clusters=[0, 1, 2]))

    monkeypatch.setattr(pipeline, "train", stand_in)
    return runs


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, at: str = "train") -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline if at == "train" else train.datasets, at, fail)


def test_a_dry_run_shows_everything_and_changes_nothing(photos, trains, type_in, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = type_in("--data", photos, "--out", "run s/first", *SMALLEST, "--dry-run")
    assert said.code == 0, said.err
    assert "8 images, 1 left out" in said.out
    assert re.search(r"^  broken\.jpg: ", said.out, re.M)
    assert re.search(r"cluster +2 steps +about \d+ s", said.out)
    picture = tmp_path / "first-plan.png"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, picture])
    assert trains == []
    assert type_in(*hint(said.out)).code == 0
    assert trains[0].folder == Path("run s/first")
    again = type_in("--out", "run s/first", "--resume", "--dry-run")
    assert again.code == 0
    assert (tmp_path / "run s" / "first-plan.png").exists()


def test_a_run_writes_its_log_and_its_plan(photos, trains, type_in) -> None:
    said = type_in("--data", photos, "--out", "run", *SMALLEST)
    assert said.code == 0
    log = Path("run/train.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d reading: 9/9 in \d+ s 1 unreadable$", log, re.M)
    for line in said.out.splitlines():
        assert line in log
    assert json.loads(Path("run/cache/facts/plan.json").read_text())["images"] == 8
    assert said.out.splitlines()[-1] == "serve   tessera serve --bundle run/bundle"
    assert not Path("run/run.lock").exists()


def test_a_first_attempt_that_did_nothing_is_no_obstacle(photos, trains, type_in, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        failing(patch, TesseraError("the weights cannot be used"))
        first = type_in("--data", photos, "--out", "run", *SMALLEST)
    assert first.code == 1
    assert "the weights cannot be used" in first.err
    assert Path("run/run.json").exists()
    assert type_in("--data", photos, "--out", "run", *SMALLEST).code == 0
    assert trains[0].recipe.backbone.weights == "random"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device", "x")])
def test_what_ends_a_run_says_what_goes_on(photos, trains, type_in, monkeypatch, error) -> None:
    """While images are read nothing has begun: the same command; later --resume."""
    with monkeypatch.context() as patch:
        failing(patch, error, at="open")
        first = type_in("--data", photos, "--out", "a b", *SMALLEST)
    assert first.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert not Path("a b").exists()
    with monkeypatch.context() as patch:
        failing(patch, error)
        second = type_in(*hint(first.err))
    assert second.code == first.code
    assert hint(second.err) == ["--out", "a b", "--resume"]
    assert "the disk is full (x): make room" in second.err or isinstance(error, KeyboardInterrupt)
    assert type_in(*hint(second.err)).code == 0
    assert len(trains) == 1


def test_a_run_goes_on_with_its_own_recipe_and_what_may_change(photos, trains, type_in) -> None:
    assert type_in("--data", photos, "--out", "run", *SMALLEST, "--set", "clusters.k=4").code == 0
    refused = type_in("--out", "run", "--resume", "--set", "seed=5", "--set", "workers=1", "--set", "clusters.k=5")
    assert refused.code == 2
    assert "begun with clusters.k: 4, here 5; seed: 0, here 5. --resume" in refused.err
    assert "train anew: tessera train --recipe run/recipe.toml --data PHOTOS --out NEW --set" in refused.err
    allowed = ["--set", "workers=1", "--set", "train.preview_every=7", "--no-exemplars"]
    assert type_in("--out", "run", "--resume", *allowed).code == 0
    assert (trains[1].recipe.workers, trains[1].recipe.export.exemplars, trains[1].recipe.clusters.k) == (1, 0, 4)
    assert type_in("--out", "run", "--resume").code == 0  # as it was last
    assert trains[2].recipe == trains[1].recipe


@pytest.mark.parametrize("also", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("backbone.weights=none.pth", "backbone.weights none.pth: there is no such file"),
        ("backbone.name=resnet1", "'resnet1' is not a timm name; near it: resnet"),
    ],
)
def test_a_backbone_that_cannot_be_had_is_refused_before_a_photo_is_read(
    photos, trains, type_in, monkeypatch, also, wrong, said
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, AssertionError("photos were read"), at="open")
        refused = type_in("--data", photos, "--out", "run", *SMALLEST, "--set", wrong, *also)
    assert refused.code in (1, 2)
    assert said in refused.err
    assert not Path("run").exists()


def test_an_overwrite_begins_anew_and_not_before_all_is_well(photos, trains, type_in) -> None:
    assert type_in("--data", photos, "--out", "run", *SMALLEST).code == 0
    again = ["--data", photos, "--out", "run", *SMALLEST]
    refused = type_in(*again)
    assert refused.code == 2
    assert "add --resume to go on with it, --overwrite to remove it" in refused.err
    for wrong in (["--set", "picie.stepz=1"], ["--set", "backbone.name=test_vit"], ["--init", "run"]):
        assert type_in(*again, "--overwrite", *wrong).code in (1, 2)
        assert Path("run/checkpoints/last.safetensors").exists()
    assert type_in(*again, "--overwrite", "--set", "clusters.k=5").code == 0
    assert json.loads(Path("run/run.json").read_text())["recipe"]["clusters"]["k"] == 5
    Path("run/notes.txt").write_text("mine")
    assert "notes.txt, which no run made" in type_in(*again, "--overwrite").err
    assert type_in("--out", "run", "--resume", "--overwrite").code == 2


def test_a_new_run_begins_with_earlier_weights(photos, trains, type_in, monkeypatch) -> None:
    assert type_in("--data", photos, "--out", "old", *SMALLEST).code == 0
    assert type_in("--data", photos, "--out", "new", *SMALLEST, "--set", "seed=9", "--init", "old").code == 0
    weights = initial.read(Path("old/checkpoints/last.safetensors"))
    kept = initial.read(Path("new/checkpoints/init.safetensors"))
    assert all(torch.equal(kept[name], value) for name, value in weights.items())
    refused = type_in("--data", photos, "--out", "other", *SMALLEST, "--set", "picie.code_dim=9", "--init", "old")
    assert refused.code == 2
    assert "its network is not this run's" in refused.err
    assert not Path("other/run.json").exists()
    begun: list[dict[str, torch.Tensor]] = []

    def fit(method: torch.nn.Module, *_: Any, **__: Any) -> float:
        begun.append({name: value.clone() for name, value in method.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.loop, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        TRAIN(trains[1])
    assert all(torch.equal(begun[0][name], value) for name, value in weights.items())


def test_a_teacher_and_a_student_are_values_of_the_recipe(photos, trains, type_in, monkeypatch) -> None:
    def stand_in(run: Run) -> Any:
        trains.append(run)
        return SimpleNamespace(path=run.folder / "bundle", manifest=SimpleNamespace(clusters=[0, 1, 2]))

    monkeypatch.setattr(pipeline, "train", stand_in)
    bundle = write_tiny_bundle(Path("a teacher"))
    also = ["--student", "test_resnet", "--device", "cpu"]
    plain = type_in("--data", photos, "--out", "plain", "--teacher", "a teacher", *also, "--set", "workers=0")
    assert plain.code == 0, plain.err
    found = trains[0].recipe
    assert (found.clusters.k, found.input.size, found.student.backbone) == (5, 64, "test_resnet")
    assert found.student.teacher == str(bundle.path.resolve())
    again = type_in("--out", "plain", "--resume")
    assert again.code == 0, again.err
    assert trains[1].recipe == found
    other = type_in("--out", "plain", "--resume", "--student", "resnet10t")
    assert "begun with student.backbone: 'test_resnet', here 'resnet10t'" in other.err
    own = type_in("--data", photos, "--out", "own", *SMALLEST, "--teacher", "test_resnet", "--student", "test_resnet")
    assert own.code == 0, own.err
    assert (trains[2].recipe.backbone.weights, trains[2].recipe.student.teacher) == ("random", "")
    refused = [
        (["--teacher", "a teacher"], "a teacher without a student: add --student NAME"),
        (["--teacher", "resnet10t"], "a teacher without a student: add --student NAME"),
        (["--teacher", "a teacher", *also, "--set", "clusters.k=4"], "has 5 clusters"),
        (["--teacher", "a teacher", *also, "--init", "own"], "the teacher is finished"),
        (["--teacher", "no such", *also], "neither a file, nor a folder, nor one of timm's"),
    ]
    failing(monkeypatch, AssertionError("photos were read"), at="open")
    for flags, said in refused:
        answer = type_in("--data", photos, "--out", "other", *flags)
        assert answer.code == 2
        assert said in answer.err
        assert not Path("other").exists()


def test_memory_that_ends_on_a_gpu_is_told(photos, type_in, monkeypatch) -> None:
    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"))
    said = type_in("--data", photos, "--out", "run", *SMALLEST)
    assert said.code == 1
    assert "no memory left" in said.err
