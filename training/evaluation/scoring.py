"""Label maps against ground truth, image by image: nothing of one image is kept but its counts.

Knows nothing of commands, files of results or pages: a mapper and labelled images in, scores out.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console

from models.errors import TesseraError
from models.io.paths import Skipped
from models.preprocess import fit
from models.terminal.progress import Progress
from models.types import Array
from training.data import validity
from training.data.errors import DataError, reason_of
from training.data.images import Images
from training.data.label_maps import IGNORED
from training.data.prefetch import prefetch
from training.evaluation import linear_probe, metrics
from training.evaluation.correspondence_curve import IMAGES, Curve, Places, curves, places
from training.evaluation.exported import Device, Network
from training.evaluation.label_maps import Edges, Mapper, Protocol, Way, enlarged, framed
from training.evaluation.linear_probe import Lesson, LinearProbe

_SAME_SHAPE = 1.05  # ratio of two aspects: sizes may differ, and rounding moves small ones


class _Counted(NamedTuple):
    confusion: Array
    seconds: float


@dataclass(frozen=True)
class Options:
    """What is measured besides the way the service takes, and how.

    edges        rows refined in each of these ways
    flip         rows with and without averaging with the mirrored image
    curves       precision and recall of feature correspondences
    levels       figures of fewer clusters, along the bundle's tree
    probe_steps  of the linear probe, where there is something for it to learn from
    workers      images at once
    """

    edges: tuple[Edges, ...] = ()
    flip: bool = False
    curves: bool = False
    levels: bool = False
    probe_steps: int = 400
    seed: int = 0
    workers: int = 1
    device: Device = "auto"


@dataclass(frozen=True)
class Row:
    """One way of making label maps, and what it is worth. `seconds` an image, from fitted pixels to label map."""

    way: Way
    scores: metrics.Scores
    seconds: float


@dataclass
class Tally:
    """Rows in the order asked for; how many images were scored, and which could not be."""

    rows: list[Row] = field(default_factory=list)
    images: int = 0
    pixels: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class Shown(NamedTuple):
    """An image RGB uint8 [H, W, 3], its label map uint8 [H, W], and whether it holds data everywhere."""

    image: Array
    labels: Array
    whole: bool = True


@dataclass(frozen=True)
class Labelled:
    """Images with label maps, as a protocol shows them.

    size  (H, W) the bundle asks for; what `crop` cuts to
    """

    images: Images
    classes: int
    protocol: Protocol
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Shown:
        """Image and label map, which says nothing where no data is. Raises DataError, ImageError, OSError."""
        decoded = self.images.load(i)
        image, labels = decoded.image, validity.ignored(self.images.labels(i), decoded.valid)
        beyond = labels[(labels >= self.classes) & (labels != IGNORED)]
        if beyond.size:
            raise DataError(
                f"its label map has the value {beyond.max()}, but there are {self.classes} classes (0 to"
                f" {self.classes - 1}; {IGNORED} is ignored): name the --dataset these labels belong to, renumber them,"
                f" or leave it out with --ignore {beyond.max()}"
            )
        aspects = [height / width for height, width in (image.shape[:2], labels.shape)]
        if max(aspects) > _SAME_SHAPE * min(aspects):
            sizes = " and ".join(f"{size[1]}×{size[0]}" for size in (image.shape, labels.shape))
            raise DataError(f"image and label map are {sizes}, of two shapes: are they a pair?")
        return Shown(*framed(image, labels, self.protocol, self.size), whole=decoded.valid is None)

    def trouble(self, i: int, error: Exception) -> Skipped:
        """What stands in the list of images that could not be used."""
        path = self.images.paths[i]
        return Skipped(path, reason_of(error, str(path)))


def score(mapper: Mapper, labelled: Labelled, options: Options, console: Console) -> Tally:
    """Every image in every way; each prediction is brought to the label map's size by nearest neighbor.

    Raises TesseraError where not one image could be scored, or no pixel of any.
    """
    classes, ways = labelled.classes, mapper.ways(options.edges)

    def one(i: int) -> dict[Way, _Counted] | Skipped:
        try:
            image, truth, _ = labelled[i]
            return {
                way: _Counted(
                    metrics.confusion(enlarged(made.labels, truth.shape), truth, mapper.values(way, classes), classes),
                    made.seconds,
                )
                for way, made in mapper(image, ways).items()
            }
        except (TesseraError, OSError) as error:
            return labelled.trouble(i, error)

    tally, sums = Tally(), dict[Way, _Counted]()
    with Progress(console, "scoring", len(labelled)) as bar:
        for found in prefetch(one, range(len(labelled)), options.workers):
            if isinstance(found, Skipped):
                tally.skipped.append(found)
            else:
                tally.images += 1
                for way, counted in found.items():
                    seen = sums.get(way, _Counted(np.zeros_like(counted.confusion), 0.0))
                    sums[way] = _Counted(seen.confusion + counted.confusion, seen.seconds + counted.seconds)
            bar.advance(note=f"{len(tally.skipped)} failed" if tally.skipped else "")
    if not tally.images:
        first = f", the first because {tally.skipped[0].reason}" if tally.skipped else ""
        raise TesseraError(f"none of {len(labelled)} images could be scored{first}")
    for way in ways:
        counts, seconds = sums[way]
        matched = np.arange(classes) if way.probe else mapper.taught.match if way.taught and mapper.taught else None
        scores = metrics.score(counts, matched)
        tally.rows.append(Row(way, scores, float(seconds) / tally.images))
    tally.pixels = int(tally.rows[0].scores.confusion.sum())
    if not tally.pixels:
        raise TesseraError(f"no pixel of {tally.images} label maps has a known class: all are ignored")
    return tally


def probe(
    mapper: Mapper, network: Network, labelled: Labelled, options: Options, skipped: list[Skipped], console: Console
) -> LinearProbe:
    """A linear probe on the codes of labelled images; those that cannot be read are added to `skipped`."""

    def lesson(i: int) -> Lesson | None:
        try:
            image, truth, _ = labelled[i]
        except (TesseraError, OSError) as error:
            skipped.append(labelled.trouble(i, error))
            return None
        fitted = fit(image, mapper.bundle.manifest.input)
        height, width = fitted.pixels.shape[:2]
        inner = (round(fitted.box[2] * height), round(fitted.box[3] * width))
        return Lesson(network(fitted.pixels).code, enlarged(truth, inner), fitted.box)

    device = torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")
    how = {"steps": options.probe_steps, "seed": options.seed}
    return linear_probe.train(lesson, len(labelled), labelled.classes, device=device, console=console, **how)


def correspondence(
    mapper: Mapper, network: Network, labelled: Labelled, options: Options, console: Console
) -> dict[str, dict[str, Curve]]:
    """Precision and recall of "alike, so one class", of the backbone's features where there are any, and of the code.

    Of at most 400 images, drawn evenly.
    """
    every = max(1, -(-len(labelled) // IMAGES))
    chosen = range(0, len(labelled), every)

    def one(i: int) -> Places | None:
        try:
            image, truth, whole = labelled[i]
        except (TesseraError, OSError):
            return None  # scoring has named it
        fitted = fit(image, mapper.bundle.manifest.input)
        answer = network(fitted.pixels)
        maps = {} if answer.features is None else {"features": answer.features}
        maps = {**maps, "code": answer.code}
        return places(maps, truth, fitted.box, np.random.default_rng([options.seed, i]), whole=whole)

    found: list[Places] = []
    with Progress(console, "correspondence", len(chosen)) as bar:
        for seen in prefetch(one, chosen, options.workers):
            if seen is not None:
                found.append(seen)
            bar.advance()
    return curves(found, options.seed) if found else {}
