"""Exact resume, by a toy that uses everything a method may use."""

import dataclasses
import io
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from models.errors import TesseraError
from training.config.recipe import Recipe, TrainSection
from training.config.run import Run
from training.data.images import Images
from training.trainer import loop
from training.trainer.interruption import Interrupted
from training.trainer.stage import Batch, Stage


class Toy(nn.Module):
    """Two stages; draws random numbers in every place; re-clusters before each epoch; counts steps."""

    def __init__(self, die_at: tuple[str, int] | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.register_buffer("center", torch.zeros(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.die_at, self.epochs = die_at, list[int]()

    def stages(self) -> list[Stage]:
        def stage(name: str, steps: int, part: nn.Module, lr: float) -> Stage:
            groups = [{"params": list(part.parameters()), "lr": lr, "weight_decay": 0.01}]
            return Stage(name, steps, groups, self.batches, self.loss(name), self.recenter, self.count)

        return [stage("first", 11, self.layer, 0.1), stage("second", 9, self.head, 0.05)]

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        return ({"x": torch.randn(5, 4, generator=generator)} for _ in range(4))

    @torch.no_grad()
    def recenter(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.center.copy_(self.layer.weight.mean(0) + torch.randn(4))

    def count(self) -> None:
        self.steps += 1

    def loss(self, name: str):  # type: ignore[no-untyped-def]
        def loss(batch: Batch) -> dict[str, Tensor]:
            if self.die_at == (name, int(self.steps)):
                raise KeyboardInterrupt  # as a kill: nothing is written after it
            noise = torch.randn(5, 4) + float(np.random.rand())
            code = self.head(torch.relu(self.layer(batch["x"] + noise) - self.center))
            return {"fit": code.square().mean(), "log/mean": code.mean()}

        return loss


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    quiet = Console(file=io.StringIO())
    return Run(Recipe(seed=7), Images(tmp_path, []), tmp_path / "run", torch.device("cpu"), quiet)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("step", [1, 2, 4, 5, 8, 10, 11, 12, 14, 19])
def test_a_killed_run_resumes_to_the_same_bits(run: Run, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Toy()
    loop.fit(whole, whole.stages(), run, name="whole")
    monkeypatch.setattr(loop, "_LEAST_SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(loop, "_LARGEST_SHARE_OF_SAVES", 1e9)
    killed = Toy(die_at=("first" if step < 11 else "second", step))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, killed.stages(), run)
    resumed = Toy()
    torch.manual_seed(999)  # what a new process brings along must not matter
    loop.fit(resumed, resumed.stages(), run)
    assert equal(whole, resumed)
    assert not equal(whole, Toy())


def test_checkpoints_of_some_steps_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint lies three steps before the kill, in the middle of an epoch."""
    whole = Toy()
    loop.fit(whole, whole.stages(), run, name="whole")
    killed = Toy(die_at=("first", 9))
    monkeypatch.setattr(loop._Training, "_save_is_due", lambda self: self.step == 6)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, killed.stages(), run)
    resumed = Toy()
    loop.fit(resumed, resumed.stages(), run)
    assert equal(whole, resumed)
    assert resumed.epochs == [2, 0, 1, 2]  # epoch 1 was under way: its centers came from the checkpoint
    steps = [(line["stage"], line["step"]) for line in loop.read_log(run.log)]
    assert steps == [("first", i + 1) for i in range(11)] + [("second", i + 1) for i in range(9)]


def test_a_finished_run_does_nothing_more(run: Run) -> None:
    first, again = Toy(), Toy()
    loop.fit(first, first.stages(), run)
    loop.fit(again, again.stages(), run)
    assert equal(first, again)
    assert again.epochs == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(run: Run, number: signal.Signals) -> None:
    whole = Toy()
    loop.fit(whole, whole.stages(), run, name="whole")
    toy = Toy()
    stages = toy.stages()
    before = stages[0].loss

    def loss(batch: Batch) -> dict[str, Tensor]:
        if toy.steps == 6:
            os.kill(os.getpid(), number)
        return before(batch)

    object.__setattr__(stages[0], "loss", loss)
    with pytest.raises(Interrupted, match=r"stage first, step 7.*--resume"):
        loop.fit(toy, stages, run)
    resumed = Toy()
    loop.fit(resumed, resumed.stages(), run)
    assert equal(whole, resumed)


def test_a_loss_that_is_no_number_stops_the_run(run: Run) -> None:
    toy = Toy()
    stages = toy.stages()
    before = stages[0].loss
    object.__setattr__(stages[0], "loss", lambda b: {"fit": before(b)["fit"] * (float("nan") if toy.steps == 3 else 1)})
    with pytest.raises(TesseraError, match=r"first.*step 4: loss, fit.*learning rate"):
        loop.fit(toy, stages, run)


def test_gradients_that_are_no_numbers_never_reach_a_checkpoint(run: Run) -> None:
    weight = nn.Parameter(torch.zeros(2))
    module = nn.Module()
    module.weight = weight
    stage = Stage(
        "root",
        1,
        [{"params": [weight], "lr": 1.0}],
        lambda epoch: [{"x": torch.ones(1)}],
        lambda batch: {"root": weight.sqrt().sum()},  # 0 at 0, where its slope is infinite
    )
    with pytest.raises(TesseraError, match="weights are not finite after step 1"):
        loop.fit(module, [stage], run)
    assert not (run.checkpoints / "last.safetensors").exists()


def test_an_epoch_without_batches_is_an_error(run: Run) -> None:
    weight = nn.Parameter(torch.zeros(2))
    stage = Stage("empty", 1, [{"params": [weight], "lr": 1.0}], lambda epoch: [], lambda b: {})
    with pytest.raises(Exception, match="fewer images than one batch"):
        loop.fit(nn.Module(), [stage], run)


def test_a_checkpoint_of_other_stages_is_refused(run: Run) -> None:
    toy = Toy()
    loop.fit(toy, toy.stages()[:1], run)
    with pytest.raises(Exception, match="stage 'first'; this recipe has second"):
        loop.fit(Toy(), Toy().stages()[1:], run)


def test_the_log_holds_every_loss(run: Run) -> None:
    toy = Toy()
    loop.fit(toy, toy.stages(), run)
    with run.log.open("a") as log:
        log.write('{"stage": "first", "st')  # a crash in the middle of a line
    lines = loop.read_log(run.log)
    assert {"loss", "fit", "log/mean", "seconds", "images_per_s", "epoch"} <= lines[0].keys()
    assert lines[0]["loss"] == pytest.approx(lines[0]["fit"])
    assert json.dumps(lines)


def test_gradients_are_shortened_to_the_clip(run: Run) -> None:
    module = nn.Linear(4, 2)
    norms: list[float] = []

    def measure() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()))

    def stage(name: str, clip: float) -> Stage:
        groups = [{"params": list(module.parameters()), "lr": 1e-3}]
        return Stage(
            name,
            2,
            groups,
            lambda epoch: [{"x": torch.ones(3, 4)}],
            lambda batch: {"large": 100 * module(batch["x"]).sum()},
            after_step=measure,
            clip=clip,
        )

    loop.fit(module, [stage("free", math.inf), stage("clipped", 0.5)], run)
    assert min(norms[:2]) > 100
    assert norms[2:] == pytest.approx([0.5, 0.5], rel=1e-4)


def test_events_are_written_once_whatever_is_done_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard shows every step of every stage once, with the numbers of metrics.jsonl."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(loop._Training, "_save_is_due", lambda self: self.step == 6)
    killed = Toy(die_at=("first", 9))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, killed.stages(), run)
    resumed = Toy()
    loop.fit(resumed, resumed.stages(), run)
    shown = EventAccumulator(str(run.events("last")))
    shown.Reload()
    lines = loop.read_log(run.log)
    for stage, before in (("first", 0), ("second", 11)):
        events = shown.Scalars(f"{stage}/loss")
        wanted = [(before + line["step"], line["loss"]) for line in lines if line["stage"] == stage]
        assert [event.step for event in events] == [step for step, _ in wanted]
        assert [event.value for event in events] == pytest.approx([loss for _, loss in wanted])


def test_checkpoints_that_stay_are_those_that_were_passed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    every = dataclasses.replace(run, recipe=run.recipe.model_copy(update={"train": TrainSection(checkpoint_every=5)}))
    killed = Toy(die_at=("second", 17))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, killed.stages(), every)
    resumed, whole = Toy(), Toy()
    loop.fit(resumed, resumed.stages(), every)
    loop.fit(whole, whole.stages(), run, name="whole")
    assert equal(resumed, whole)
    kept = {path.name: path for path in run.checkpoints.glob("step-*")}
    assert sorted(kept) == ["step-10.safetensors", "step-15.safetensors", "step-20.safetensors", "step-5.safetensors"]
    again = Toy()
    os.replace(kept["step-10.safetensors"], run.checkpoints / "again.safetensors")
    loop.fit(again, again.stages(), run, name="again")
    assert equal(again, whole)


def test_who_watches_sees_every_step(run: Run) -> None:
    seen: list[tuple[str, int]] = []
    toy = Toy()
    loop.fit(toy, toy.stages(), run, watch=lambda stage, step, losses: seen.append((stage.name, step)))
    assert seen == [("first", i + 1) for i in range(11)] + [("second", i + 1) for i in range(9)]
