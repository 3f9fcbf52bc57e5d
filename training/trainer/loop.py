"""Runs stages: seeds, steps, log lines, checkpoints, and going on exactly where it stopped.

Knows stages, never methods. A training killed at any moment and resumed ends, on the CPU, with the same bits
as one that was never stopped. For that a stage keeps two promises: `batches(epoch)` depends on the seed and
the epoch alone, and what `before_epoch` leaves behind is in the module's state_dict, because a run
resumed within an epoch does not call it again.

Of several processes (training/distributed.py) all step and stop together, and the main one alone writes.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from models.errors import TesseraError
from models.terminal.progress import Progress, say
from training import distributed
from training.config.run import Run, resume_command, write_text
from training.trainer import checkpoint, collapse
from training.trainer.interruption import Stop
from training.trainer.seeds import seed_all
from training.trainer.snapshot import Position, Saved, load_module, snapshot
from training.trainer.stage import Batch, Stage, nothing
from training.trainer.tensorboard import Events

_LEAST_SECONDS_BETWEEN_SAVES = 5.0
_LARGEST_SHARE_OF_SAVES = 0.025  # of all time: a big model on a slow disk is saved less often
_LINES_PER_STAGE = 200  # in the log

Watch = Callable[[Stage, int, Mapping[str, Tensor]], object]


@dataclass(frozen=True)
class Workspace:
    """Where a training keeps what it has done, and whom it tells.

    checkpoint      written as it goes; where there is one, the training goes on from it
    log             a line holds stage, step, epoch, seconds, images_per_s and the mean of every loss since the last
    resume_command  what goes on with it, for people
    identity        what decides the result, as a digest: a checkpoint of another one is refused
    events          folder for TensorBoard; None: none
    keep_every      steps between two checkpoints that stay, beside `checkpoint`, as step-N; 0: none does
    watch           is told every step's stage, number and losses; changes nothing
    """

    checkpoint: Path
    log: Path
    seed: int
    console: Console
    resume_command: str
    identity: str = ""
    events: Path | None = None
    keep_every: int = 0
    watch: Watch = nothing


def fit(
    module: nn.Module,
    stages: Sequence[Stage],
    run: Run,
    *,
    name: str = "last",
    watch: Watch = nothing,
) -> float:
    """Trains `module` within a run, from RUN/checkpoints/<name>.safetensors where there is one; see `train`."""
    collapsing = collapse.Watch(run)

    def both(stage: Stage, step: int, losses: Mapping[str, Tensor]) -> None:
        collapsing(stage, step, losses)
        watch(stage, step, losses)

    place = Workspace(
        run.checkpoints / f"{name}.safetensors",
        run.log,
        run.recipe.seed,
        run.console,
        resume_command(run.folder),
        events=run.events(name),
        keep_every=run.recipe.train.checkpoint_every,
        watch=both,
    )
    return train(module, stages, place)


def train(module: nn.Module, stages: Sequence[Stage], place: Workspace) -> float:
    """Trains `module` stage by stage, from the checkpoint where there is one; returns the seconds spent.

    Raises TesseraError when the loss is not finite, Interrupted after SIGINT or SIGTERM. A checkpoint stands
    after both. Raises TesseraError for one that does not fit.
    """
    saved = Saved.load(place.checkpoint, place.identity, stages)
    position = Position()
    if saved is not None:
        position = saved.position
        load_module(module, saved, place.checkpoint)
        if position.stage < len(stages):
            where = f"stage {stages[position.stage].name}, step {position.step}"
            say(place.console, f"going on at {where}")
    if distributed.is_main():
        _cut_log(place.log, stages, position)
    before = [sum(stage.steps for stage in stages[:index]) for index in range(len(stages) + 1)]
    written = place.events if position.stage < len(stages) and distributed.is_main() else None
    events = Events(written, before[position.stage] + position.step)
    try:
        with Stop(place.resume_command) as stop:
            for index in range(position.stage, len(stages)):
                resumed = saved if saved is not None and position.step else None
                training = _Training(module, stages[index], position, before[index], place, stop, events)
                position = training.run(resumed)
    finally:
        events.close()
    return position.seconds


class _Training:
    """One stage under way."""

    def __init__(
        self,
        module: nn.Module,
        stage: Stage,
        position: Position,
        before: int,  # steps of the stages before it
        place: Workspace,
        stop: Stop,
        events: Events,
    ) -> None:
        self.module, self.stage, self.place, self.stop = module, stage, place, stop
        self.before, self.events = before, events
        self.index, self.step = position.stage, position.step
        self.epoch, self.batch = position.epoch, position.batch
        self.began = time.monotonic() - position.seconds
        # The groups are handed over as they are: a stage that changes its rate does so in its own groups.
        self.optimizer = stage.optimizer(list(stage.groups))
        self.meter = _Meter(place.log, stage, before, events)
        self.last_save, self.save_cost = time.monotonic(), 0.0

    def run(self, saved: Saved | None) -> Position:
        """From `saved`, or from the stage's beginning, to its end; the position after it."""
        if saved is None:
            seed_all(self.place.seed + 7919 * self.index)
        with Progress(self.place.console, self.stage.name, self.stage.steps, done=self.step) as bar:
            while self.step < self.stage.steps:
                for batch in self._batches(saved):
                    self._train(batch, bar)
                    if self.step == self.stage.steps:
                        break
                    if self.stop.ask_all(save=self._save_is_due() or self._is_kept()):
                        self._save(Position(self.index, self.step, self.epoch, self.batch, self._seconds()))
                        self.stop.leave_if_asked(f"stage {self.stage.name}, step {self.step}")
                saved = None
                if self.batch == 0:
                    raise TesseraError(
                        f"stage {self.stage.name} has no batch in epoch {self.epoch}: there are fewer images than"
                        " one batch needs; lower the batch size or add images"
                    )
                self.epoch, self.batch = self.epoch + 1, 0
        after = Position(stage=self.index + 1, seconds=self._seconds())
        self.stop.ask_all(save=True)
        self._save(after)
        self.stop.leave_if_asked(f"the end of stage {self.stage.name}")
        return after

    def _batches(self, saved: Saved | None) -> Iterator[Batch]:
        """What is left of the epoch, with every generator as it was when `saved` was written."""
        if self.batch:  # resumed within an epoch
            batches = iter(self.stage.batches(self.epoch))
            for _ in range(self.batch):
                next(batches, None)
            if saved is not None:
                saved.restore(self.optimizer)
            return batches
        if saved is not None:
            saved.restore(self.optimizer)
        self.stage.before_epoch(self.epoch)
        return iter(self.stage.batches(self.epoch))

    def _train(self, batch: Batch, bar: Progress) -> None:
        losses = self.stage.loss(batch)
        total = torch.stack([value for name, value in losses.items() if not name.startswith("log/")]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        distributed.average_gradients(trained)
        if self.stage.clip < math.inf:
            nn.utils.clip_grad_norm_(trained, self.stage.clip)
        self.optimizer.step()
        self.stage.after_step()
        self.step += 1
        self.batch += 1
        self.meter.add(losses, total, batch)
        self.place.watch(self.stage, self.step, losses)
        note = self.meter.flush(self.step, self.epoch, self._seconds()) if self.meter.due(self.step) else None
        bar.advance(1, note)

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)

    def _save_is_due(self) -> bool:
        pause = max(_LEAST_SECONDS_BETWEEN_SAVES, self.save_cost / _LARGEST_SHARE_OF_SAVES)
        return time.monotonic() - self.last_save > pause

    def _is_kept(self) -> bool:
        return self.place.keep_every > 0 and (self.before + self.step) % self.place.keep_every == 0

    def _save(self, position: Position) -> None:
        start = time.monotonic()
        self.meter.flush(self.step, self.epoch, self._seconds())
        self.events.flush()
        for group in self.optimizer.param_groups:
            if not all(bool(torch.isfinite(p).all()) for p in group["params"]):
                raise TesseraError(
                    f"stage {self.stage.name}: weights are not finite after step {self.step}, though the loss"
                    " was: lower the learning rate. The last checkpoint still holds finite weights"
                )
        if distributed.is_main():
            self._write(position)
        distributed.barrier()
        self.last_save = time.monotonic()
        self.save_cost = self.last_save - start

    def _write(self, position: Position) -> None:
        tensors, facts = snapshot(self.optimizer, position)
        for name, value in self.module.state_dict().items():
            tensors[f"module/{name}"] = value
        facts |= {"stage": self.stage.name, "identity": self.place.identity}
        checkpoint.save(self.place.checkpoint, tensors, facts)
        if self._is_kept():
            _keep(self.place.checkpoint, self.before + self.step)


def _keep(path: Path, step: int) -> None:
    """A second name for the checkpoint as it is: the next one is a file of its own."""
    mark = "" if path.stem == "last" else f"{path.stem}-"
    kept = path.with_name(f"{mark}step-{step}{path.suffix}")
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        shutil.copyfile(path, kept)


class _Meter:
    """Means of the losses between two log lines."""

    def __init__(self, path: Path, stage: Stage, before: int, events: Events) -> None:
        self.path, self.stage, self.before, self.events = path, stage, before, events
        self.every = max(1, min(10, stage.steps // _LINES_PER_STAGE))
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count, self.images, self.since = 0, 0, time.monotonic()

    def add(self, losses: dict[str, Tensor], total: Tensor, batch: Batch) -> None:
        """One step's losses; kept on the device, so that the step does not wait for them."""
        for name, value in {"loss": total, **losses}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach()
        self.count += 1
        self.images += next((len(v) for v in batch.values() if isinstance(v, Tensor) and v.ndim), 0)

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def flush(self, step: int, epoch: int, seconds: float) -> str | None:
        """Writes a line; returns what stands behind the progress bar. Raises TesseraError."""
        if not self.count:
            return None
        sums = torch.tensor([float(value) for value in self.sums.values()], dtype=torch.float64)
        each = distributed.all_reduce_(sums) / (self.count * distributed.world())
        means = dict(zip(self.sums, each.tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            broken = ", ".join(name for name, value in means.items() if not math.isfinite(value))
            raise TesseraError(
                f"stage {self.stage.name}: not finite within the {self.count} steps before step {step}: {broken}."
                " Lower the learning rate; the last checkpoint holds the weights before"
            )
        rate = self.images / max(time.monotonic() - self.since, 1e-9)
        line = {"stage": self.stage.name, "step": step, "epoch": epoch, "seconds": seconds}
        if distributed.is_main():
            with self.path.open("a", encoding="utf-8") as log:
                log.write(json.dumps({**line, "images_per_s": round(rate, 2), **means}) + "\n")
        self.events.write(self.stage.name, self.before + step, {"images_per_s": rate, **means})
        self._clear()
        return f"loss {means['loss']:.4g}, {rate:.1f} images/s"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a crash is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _cut_log(path: Path, stages: Sequence[Stage], position: Position) -> None:
    """Drops the lines of steps that are about to be done again."""
    order = {stage.name: i for i, stage in enumerate(stages)}

    def stands(line: dict[str, Any]) -> bool:
        stage = order.get(line["stage"])  # None: of another module's training
        if stage is None or stage == position.stage:
            return stage is None or line["step"] <= position.step
        return stage < position.stage

    kept = [line for line in read_log(path) if stands(line)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
