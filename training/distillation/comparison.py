"""A student beside its teacher: on how many pixels they agree, how long each takes for an image, how large each is.

Knows nothing of training. Both are asked as they are served: the exported graphs, on the processor.
"""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models import assign
from models.inference import Predictor
from models.preprocess import InputSpec, fit
from models.terminal.progress import Progress
from models.types import Array
from training.config.run import Run
from training.data import validity
from training.data.images import Images
from training.data.preprocess import fitted
from training.discovery.align import shared
from training.distillation.lessons import split
from training.distillation.teacher import Teacher
from training.evaluation.exported import Exported

_ROUNDS = 9  # of one image through both, in turns
_PATIENCE_S = 20.0  # for all of them; three are timed in any case


@dataclass(frozen=True)
class Speed:
    """Median milliseconds that a network takes for one image, the same for both, fitted to its own size (H, W)."""

    ms: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """What was found.

    table    int64 [K, K], pixels by the teacher's cluster (row) and the student's
    images   that they are of; the student has seen none of them
    threads  of both networks while they were timed
    """

    table: Array
    images: int
    teacher: Speed
    student: Speed
    threads: int

    @property
    def agreement(self) -> float:
        """Share of the pixels with the same cluster, 0..1."""
        return float(self.table.trace() / max(1, self.table.sum()))

    @property
    def by_cluster(self) -> list[float | None]:
        """Of the teacher's pixels of each cluster the share that is the student's too; None: it has none."""
        return [float(row[k] / row.sum()) if row.sum() else None for k, row in enumerate(self.table)]

    @property
    def iou(self) -> list[float | None]:
        """Of the pixels of each cluster, by either, the share that is both's; None: there are none."""
        union = self.table.sum(0) + self.table.sum(1) - self.table.diagonal()
        return [float(self.table[k, k] / n) if n else None for k, n in enumerate(union)]

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "agreement": round(self.agreement, 4),
            "by_cluster": [None if share is None else round(share, 4) for share in self.by_cluster],
            "iou": [None if share is None else round(share, 4) for share in self.iou],
            "held_out_images": self.images,
            "ms": {"teacher": round(self.teacher.ms, 2), "student": round(self.student.ms, 2)},
            "size": {"teacher": list(self.teacher.size), "student": list(self.student.size)},
            "threads": self.threads,
        }


def compare(teacher: Teacher, student: bytes, spec: InputSpec, run: Run) -> Comparison:
    """Teacher and student before the images of the run that the student has not seen.

    student  its ONNX file, which sees images as `spec` says
    """
    section, threads = run.recipe.student, torch.get_num_threads()
    _, images = split(run.images, section.held_out, section.images)
    own = Exported(student, threads=threads)
    table = shared(_maps(teacher, own, spec, images, run), teacher.k, teacher.k)
    graphs = {"teacher": Exported(teacher.bundle.encoder_bytes(), threads=threads), "student": own}
    first, specs = images[0], {"teacher": teacher.bundle.manifest.input, "student": spec}
    inputs = {name: fit(first, how).pixels for name, how in specs.items()}
    took = timed(graphs, inputs)
    speeds = {name: Speed(took[name], (pixels.shape[0], pixels.shape[1])) for name, pixels in inputs.items()}
    return Comparison(table, len(images), speeds["teacher"], speeds["student"], threads)


def timed(
    networks: Mapping[str, Predictor], inputs: Mapping[str, Array], patience_s: float = _PATIENCE_S
) -> dict[str, float]:
    """Median milliseconds of a call of each network, all called in turns so that what else goes on meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in networks}
    for name, network in networks.items():
        network(inputs[name][None])  # the first call plans its memory
    began = time.perf_counter()
    while len(found[name]) < _ROUNDS and (len(found[name]) < 3 or time.perf_counter() - began < patience_s):
        for name, network in networks.items():
            start = time.perf_counter()
            network(inputs[name][None])
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in found.items()}


def _maps(
    teacher: Teacher, student: Predictor, spec: InputSpec, images: Images, run: Run
) -> Iterator[tuple[Array, Array]]:
    """Both label maps of each image, at the size at which the student sees it."""
    how = teacher.bundle.manifest.code.interpolation
    with Progress(run.console, "comparing", len(images)) as bar:
        for decoded, one in fitted(images, spec, run.recipe.workers):
            size = one.filled.shape[0], one.filled.shape[1]
            seen, answer = teacher.answer(decoded.image)
            before = assign.labels(answer.scores[0], size, seen.box, how)
            after = assign.labels(student(one.pixels[None]).scores[0], size, one.box)
            yield validity.ignored(before, decoded.valid), validity.ignored(after, decoded.valid)
            bar.advance()
