"""What a run will take, before it begins: parts, steps, disk, memory, and time by a measurement of two seconds.

Knows no method: each tells its passes and stages, on stand-ins for what it would compute. The network is a throwaway
with random weights: nothing is fetched, nothing of the run's own is touched, nothing is written.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from models import hardware
from models.errors import TesseraError
from models.files import write_atomically
from models.io.encode import encode
from models.nets.encoder import Encoder
from models.nets.weights import read_weights
from models.preprocess import fit
from models.terminal.progress import Progress, span
from training import methods
from training.config.run import Run
from training.config.work import Through, Work
from training.data import crops
from training.data.images import evenly
from training.data.preprocess import input_spec
from training.data.regions import RegionOptions, cover, equalize, segment, smallest
from training.discovery.region_evidence import RegionEvidenceOptions
from training.distillation import asked, learner, lessons
from training.distillation.teacher import Teacher
from training.features import mask_proposals, stand_ins
from training.methods.base import Method
from training.pretraining import weights
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import Pretraining
from training.trainer import initial
from training.trainer.seeds import seeded
from training.trainer.stage import Stage

SHOWN = 8  # images in the picture
_BATCH = 4  # images through the network at once, for measuring
_CHECKED = 20  # passes of the export's check
_CODED = 5000  # images whose codes are clustered at most, where the method has no clusters of its own
_GB = 1e9
_CODE = 128  # dimensions of a code, where the method has not told: a student's are as many as its teacher's
_PATIENCE = 4  # times the seconds there are, for a second call that is not the first


@dataclass(frozen=True)
class Part:
    """One part of a run. seconds: estimated; count of unit ("steps" or "images")."""

    name: str
    count: int
    unit: str
    seconds: float
    disk_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """All parts in order, with what there is of disk and memory. process_bytes: of the process while it trains."""

    images: int
    skipped: int
    device: str
    parts: tuple[Part, ...]
    process_bytes: int
    free_disk_bytes: int
    free_memory_bytes: int | None

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(part.seconds for part in self.parts)

    @property
    def disk_bytes(self) -> int:
        """Of all parts."""
        return sum(part.disk_bytes for part in self.parts)

    @property
    def memory_bytes(self) -> int:
        """Of the largest part, with the process around it."""
        return self.process_bytes + max(part.memory_bytes for part in self.parts)

    def facts(self) -> dict[str, Any]:
        """For RUN/cache/facts/plan.json."""
        totals = {"seconds": self.seconds, "disk_bytes": self.disk_bytes, "memory_bytes": self.memory_bytes}
        return asdict(self) | totals

    def lines(self) -> Iterator[str]:
        """As a table for people."""
        width = max(len(part.name) for part in self.parts)
        for part in self.parts:
            disk = f"  {_size(part.disk_bytes)} on disk" if part.disk_bytes else ""
            yield f"  {part.name:{width}}  {part.count:>8} {part.unit}  about {span(part.seconds)}{disk}"
        memory = f" ({_size(self.free_memory_bytes)} free)" if self.free_memory_bytes is not None else ""
        yield (
            f"in all about {span(self.seconds)} on {self.device}; {_size(self.disk_bytes)} of disk"
            f" ({_size(self.free_disk_bytes)} free), {_size(self.memory_bytes)} of memory{memory}"
        )

    def require_room(self, folder: Path) -> None:
        """Raises TesseraError where the disk or the memory would end before the run does."""
        if self.disk_bytes > self.free_disk_bytes:
            most = max(self.parts, key=lambda part: part.disk_bytes)
            raise TesseraError(
                f"the run takes {_size(self.disk_bytes)} of disk, {_size(most.disk_bytes)} of it for {most.name}, and"
                f" {folder} has {_size(self.free_disk_bytes)} left: name an --out on another disk, {_less(most)}"
            )
        if self.free_memory_bytes is not None and self.memory_bytes > self.free_memory_bytes + self.process_bytes:
            most = max(self.parts, key=lambda part: part.memory_bytes)
            raise TesseraError(
                f"{most.name} holds {_size(most.memory_bytes)} of memory at once, and {_size(self.free_memory_bytes)}"
                f" are left: {_less(most)}"
            )


def make(run: Run, *, init: Path | None = None, seconds: float = 2.0) -> Plan:
    """The plan of a run, by measuring for about so many seconds, half of it for steps.

    init  the checkpoint it begins with

    Raises what building its network raises, TesseraError; UsageError where the checkpoint does not fit.
    """
    hardware.reset_peak()
    if (file := Path(run.recipe.backbone.weights)).is_file():
        read_weights(file)  # what is wrong with it is said now
    with (
        seeded(run.recipe.seed),
        Progress(run.console, "planning", None),
        tempfile.TemporaryDirectory() as scratch,
    ):
        networks = list(_networks(run, init, Path(scratch), seconds))
        parts = [part for network in networks for part in network.parts]
    kept = sum(network.checkpoint_bytes for network in networks)
    parts.append(Part("checkpoints", 1, "files", 0.0, disk_bytes=kept))
    home = next(folder for folder in (run.folder, *run.folder.absolute().parents) if folder.exists())
    return Plan(
        len(run.images), len(run.images.skipped), run.device.type, tuple(parts),
        hardware.peak_bytes(), shutil.disk_usage(home).free, hardware.available_bytes(),
    )  # fmt: skip


@dataclass(frozen=True)
class _Planned:
    """One network's way from nothing to its bundle."""

    parts: list[Part]
    checkpoint_bytes: int


def _networks(run: Run, init: Path | None, scratch: Path, seconds: float) -> Iterator[_Planned]:
    """The method's, or a finished teacher's; and the student's, where there is one."""
    section = run.recipe.student
    rate: _Rates
    if section.backbone and section.teacher:
        teacher = Teacher.of(asked.find(Path(section.teacher)), run.device)
        rate, code = _Rates(run, teacher, seconds / 2), teacher.bundle.manifest.code
        shape = (teacher.k, code.dim, code.stride)
    else:
        planned, rate, shape = _of_method(run, init, scratch, seconds)
        yield planned
    if section.backbone:
        yield _of_student(run, shape, rate, seconds)


def _of_method(
    run: Run, init: Path | None, scratch: Path, seconds: float
) -> tuple[_Planned, "_Rates", tuple[int, int, int]]:
    """What the method's network takes; how long images take on its way; its clusters, dimensions of code, stride."""
    brought = bool(init and initial.backbone(init)) and run.recipe.backbone.weights == "auto"
    first = None if brought else weights.first(run)
    method = _throwaway(run, scratch, small=brought or first is not None)
    if init:
        method.begin(initial.read(init), str(init))
    method.stand_in()
    stages, encoder = method.stages(), method.encoder()
    rate = _Rates(run, encoder, seconds / 2)
    parts = list(_pretraining(run, first, rate, seconds / 4)) if first else []
    parts += [rate.part(work) for work in method.work()]
    for stage in stages:
        each = _step_seconds(stage, lambda stage=stage: method.sample(stage), seconds / 2 / len(stages))  # type: ignore[misc]
        parts.append(Part(stage.name, stage.steps, "steps", stage.steps * each))
    for work in [*_finding(run, method), *_afterwards(run)]:
        parts.append(rate.part(work))
        if work.name == "codes of regions" and run.recipe.clusters.distill_steps:
            parts.append(rate.distilling())
    return _Planned(parts, _checkpoints(run, method, stages)), rate, (run.recipe.clusters.count, _CODE, encoder.stride)


def _of_student(run: Run, shape: tuple[int, int, int], teacher: "_Rates", seconds: float) -> _Planned:
    """What a student takes. shape: its teacher's clusters, dimensions of its code, and stride."""
    seen, never = lessons.split(run.images, run.recipe.student.held_out, run.recipe.student.images)
    student = learner.untrained(run, *shape[:2], "random").train()
    rate, learning = _Rates(run, learner.encoder(student), seconds / 2), replace(run, images=seen)
    stage = learner.stage(student, lessons.stand_in(run, *shape), run)
    each = _step_seconds(stage, lambda: next(iter(stage.batches(0))), seconds / 4)
    parts = [teacher.part(lessons.work(run, *shape))]
    if run.recipe.student.weights == "regions":
        parts += _pretraining(learning, learner.pretraining(run.recipe, seen), rate, seconds / 4)
    parts.append(Part(stage.name, stage.steps, "steps", stage.steps * each))
    parts += [network.part(Work("comparing", len(never), "serving size")) for network in (teacher, rate)]
    parts += [rate.part(work) for work in _afterwards(run)]
    return _Planned(parts, _checkpoints(run, student, [stage]))


def _throwaway(run: Run, scratch: Path, *, small: bool) -> Method[Any]:
    """The run's method in a folder of its own, of the network that it will have, under random weights.

    small  one that is pretrained here
    """
    backbone = run.recipe.backbone.model_copy(update={"weights": "random"})
    if small:
        name = weights.options_for(run.recipe, run.images).backbone
        backbone = backbone.model_copy(update={"name": name})
    recipe = run.recipe.model_copy(update={"backbone": backbone})
    planned = replace(run, recipe=recipe, folder=scratch, console=Console(quiet=True))
    kind = methods.method(run.recipe.method)
    found: Method[Any] = kind(kind.Config.model_validate(run.recipe.options), planned)
    return found


def picture(run: Run, path: Path) -> None:
    """Eight images as training gets them, one PNG: two rows of four, drawn evenly."""
    side, chosen = run.recipe.input.train_size, evenly(len(run.images), SHOWN)
    tiles = [crops.square(run.images[i], side, run.recipe.input.interpolation) for i in chosen]
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % (SHOWN // 2))
    rows = [np.concatenate(tiles[i : i + SHOWN // 2], axis=1) for i in range(0, len(tiles), SHOWN // 2)]
    png = encode(np.ascontiguousarray(np.concatenate(rows)), "png")
    write_atomically(path, lambda file: file.write(png))


class _Rates:
    """Seconds an image takes on its way, measured once for each."""

    def __init__(self, run: Run, network: Encoder | Teacher, seconds: float) -> None:
        self.run, self.network, self.seconds = run, network, seconds
        self._known: dict[Through, float] = {}

    def part(self, work: Work) -> Part:
        each = self._each(work.through)
        return Part(work.name, work.images, "images", work.images * each, work.disk_bytes, work.memory_bytes)

    def distilling(self) -> Part:
        """The network learns what several clusterings agree on: a step is twelve images, forward and back."""
        steps = self.run.recipe.clusters.distill_steps
        return Part("consensus", steps, "steps", steps * 12 * 3 * self._each("training size"))

    def _each(self, through: Through) -> float:
        if through not in self._known:
            special = {"regions": self._cutting, "masks": self._masking}
            self._known[through] = special[through]() if through in special else self._passing(through)
        return self._known[through]

    @torch.no_grad()
    def _passing(self, through: Through) -> float:
        recipe, encoder = self.run.recipe.input, self.network
        began = time.perf_counter()
        photos = [self.run.images[i] for i in evenly(len(self.run.images), 2)]
        read = (time.perf_counter() - began) / len(photos) / max(1, min(self.run.recipe.workers, hardware.cores()))
        if isinstance(encoder, Teacher):
            return read + _timed(lambda: encoder.answer(photos[0]), self.seconds / 2)
        encoder.eval()
        if through == "training size":
            pixels = np.stack([crops.square(photo, recipe.train_size) for photo in photos] * (_BATCH // len(photos)))
            x = torch.from_numpy(pixels).to(self.run.device).permute(0, 3, 1, 2).float()
            return read + _timed(lambda: encoder.code((x - encoder.mean) / encoder.std), self.seconds / 2) / len(x)
        one = torch.tensor(fit(photos[0], input_spec(encoder, recipe.size)).pixels)[None].to(self.run.device)
        return read + _timed(lambda: encoder(one), self.seconds / 2)

    def _cutting(self) -> float:
        options = RegionOptions()
        image = equalize(cover(self.run.images[0], options.size), options.contrast)

        def cut() -> None:
            for scale in options.scales:
                segment(image, scale=scale, min_size_px=smallest(scale), sigma=options.sigma)

        return _timed(cut, self.seconds / 4) / self._workers()

    @torch.no_grad()
    def _masking(self) -> float:
        assert isinstance(self.network, Encoder)  # no teacher's images are cut into masks
        encoder, side = self.network.eval(), self.run.recipe.input.train_size
        image = crops.square(self.run.images[0], side)
        x = torch.tensor(image)[None].to(self.run.device).permute(0, 3, 1, 2).float()
        maps = encoder.backbone((x - encoder.mean) / encoder.std)[0].float().cpu().numpy()

        def cut() -> None:
            mask_proposals.refined(mask_proposals.proposals(maps), image)

        cut()  # the CRF's loops may have to be compiled
        return _timed(cut, self.seconds / 4) / self._workers()

    def _workers(self) -> int:
        return min(self.run.recipe.workers or hardware.cores(), hardware.cores())


def _pretraining(run: Run, options: PretrainOptions, rate: _Rates, seconds: float) -> Iterator[Part]:
    yield rate.part(stand_ins.regions_work(options.regions, run, options.most_images))
    cache = stand_ins.regions(options.regions, run, options.most_images)
    stage = Pretraining(cache, options, run.device).stage()
    each = _step_seconds(stage, lambda: next(iter(stage.batches(0))), seconds)
    yield Part(stage.name, stage.steps, "steps", stage.steps * each)


def _finding(run: Run, method: Method[Any]) -> Iterator[Work]:
    """What finds the clusters of a trained network."""
    count, section = len(run.images), run.recipe.clusters
    if section.unit == "region" or section.distill_steps or section.merge:
        yield Work("codes of regions", count, "regions")
    elif type(method).centroids is Method.centroids or run.recipe.options.get("centroids") == "kmeans":
        yield Work("codes", min(count, _CODED), "serving size")


def _afterwards(run: Run) -> Iterator[Work]:
    """What makes a bundle of a network and its clusters."""
    count = len(run.images)
    yield Work("measuring", min(count, run.recipe.export.measured_images), "serving size")
    yield Work("tree", min(count, run.recipe.export.measured_images, RegionEvidenceOptions().images), "regions")
    yield Work("export", _CHECKED, "serving size")


def _checkpoints(run: Run, network: nn.Module, stages: list[Stage]) -> int:
    """Weights and two moments of each, twice while the next one is written; and those that stay."""
    size: int = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    every = run.recipe.train.checkpoint_every
    return 3 * size * (2 + (sum(stage.steps for stage in stages) // every if every else 0))


def _step_seconds(stage: Stage, sample: Callable[[], Any], seconds: float) -> float:
    """Of one step, its batch included."""
    optimizer = stage.optimizer(list(stage.groups))

    def step() -> None:
        losses = stage.loss(sample())
        total = torch.stack([value for name, value in losses.items() if not name.startswith("log/")]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return _timed(step, seconds)


def _timed(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call: the first warms up, unless it is all there is time for."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    took = once()
    left, found = seconds - took, list[float]()
    while left > 0 or (not found and took < _PATIENCE * seconds):
        found.append(once())
        left -= found[-1]
    return min(found, default=took)


def _less(part: Part) -> str:
    """What makes a part smaller."""
    if part.name == "checkpoints":
        return "keep fewer (train.checkpoint_every), or take a smaller backbone.name"
    return "lower input.train_size, or take fewer images"


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= 0.95 * _GB else f"{count / 1e6:.0f} MB"
