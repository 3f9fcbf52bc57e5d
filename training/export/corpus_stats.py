"""What the finished network makes of its training images, in one pass over them.

Knows nothing of training or bundles: a segmenter and images in; shares, patches and scores out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from models import assign, familiarity
from models.bundle import MAX_GOLDEN_PX, MAX_GOLDEN_SIDE_PX, Golden
from models.inference import Prediction, Predictor
from models.io.samples import Decoded
from models.preprocess import Fit, InputSpec, fit, resize
from models.terminal.progress import Progress
from models.types import Array
from training.clustering.agreement import stability
from training.data import validity
from training.data.images import Images, evenly
from training.data.label_maps import IGNORED
from training.data.prefetch import prefetch
from training.data.preprocess import batched, fitted
from training.data.synthetic import street
from training.discovery import belonging
from training.discovery.region_evidence import RegionCollector, RegionEvidenceOptions
from training.discovery.segmenter import Clustering, Segmenter
from training.evaluation import metrics
from training.evaluation.exported import Exported
from training.export.exemplars import ExemplarPicker
from training.export.photo_stats import PhotoStats, thumbnail

_IMAGES = 300  # drawn evenly from more; shares then move by about a percent
_BATCH = 4
_GOLDEN_AMONG = 32
_COMPARED_IMAGES, _CELLS, _BINS = 200, 64, 40
_SEEDS = (101, 102, 103)


@dataclass(frozen=True)
class CorpusStats:
    """What was seen.

    fractions   float64 [K], share of the pixels of every cluster, of those that hold data; sums to 1
    presence    float64 [K], share of the images that hold it
    exemplars   WebP files by cluster
    golden      an image of about the network's own size, with its labels
    scores      against ground truth, where the data set has any; None elsewhere
    similarity  histograms (40 bins, −1..1, sum 1) of the cosine between two cells of one image ("within") and
                of two images ("between"); a code that has found something is crowded near 0 and near 1
    stability   how alike three k-means of the codes with other seeds are: 1 the same, 0 as by chance
    second      float64 [K, K], share of a cluster's cells (row) whose second choice is another (column)
    photos      what was seen of each image
    apart       float64 [K, K], how far apart clusters are by what belongs together (training/discovery/belonging.py): 0
                the same thing, 1 the most unlike; None where the images say nothing of it
    """

    fractions: Array
    presence: Array
    exemplars: dict[int, list[bytes]]
    golden: Golden
    scores: metrics.Scores | None
    images: int
    similarity: dict[str, list[float]]
    stability: float
    second: Array
    photos: PhotoStats
    apart: Array | None

    @property
    def entropy(self) -> float:
        """Evenness of cluster use: 1 when all are used alike, 0 when one takes everything."""
        used = self.fractions[self.fractions > 0]
        return float(-(used * np.log(used)).sum() / math.log(len(self.fractions)))


class _Seen(NamedTuple):
    """One image and what the network says of it: scores [K, h, w], code [D, h, w]."""

    number: int
    decoded: Decoded
    one: Fit
    scores: Array
    code: Array


class OnDevice:
    """A segmenter as a Predictor, on a GPU."""

    def __init__(self, found: Segmenter, device: torch.device) -> None:
        self._encoder, self._device = found.encoder.eval().to(device), device
        self._centroids = found.compared.to(device)

    @torch.inference_mode()
    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        codes = self._encoder(torch.tensor(pixels).to(self._device)).float()
        scores = torch.einsum("kd,bdhw->bkhw", self._centroids, codes)
        return Prediction(scores.cpu().numpy(), codes.cpu().numpy())


def measure(
    found: Segmenter | Clustering,
    spec: InputSpec,
    images: Images,
    *,
    exemplars: int,
    device: torch.device,
    console: Console,
    most: int = _IMAGES,
    onnx: bytes | None = None,
    predict: Predictor | None = None,
    seed: int = 0,
    workers: int = 2,
) -> CorpusStats:
    """One pass over the training images, at most `most` of them, drawn evenly.

    exemplars  patches kept per cluster; with 0 nothing in the answer shows a training image: mean patches, a drawn
               golden image
    predict    answers in the segmenter's place
    onnx       the exported network: on a CPU it is several times faster than torch, and it is what will be served
    """
    if predict is None and onnx is not None and device.type == "cpu":
        predict = Exported(onnx, threads=torch.get_num_threads())
    if predict is None:
        if not isinstance(found, Segmenter):
            raise TypeError("a clustering alone answers nothing: give predict")
        predict = OnDevice(found, device)
    places = evenly(len(images), most)
    if len(places) < len(images):
        images = images.subset(places)
    corpus = _Corpus(found, images, places, exemplars, seed)
    with Progress(console, "measuring", len(images)) as bar:
        # One thread counts while the network runs: in order, so that the same images give the same answer.
        for _ in prefetch(corpus.add, _predicted(predict, images, spec, workers), min(workers, 1)):
            bar.advance()
    shown = street() if corpus.golden is None or not exemplars else _small(corpus.golden, min(spec.size))
    return corpus.stats(golden_by(shown, predict, spec))


def golden_of(image: Array, found: Segmenter, spec: InputSpec, device: torch.device) -> Golden:
    """An image RGB uint8 [H, W, 3], and what the network says of it."""
    return golden_by(image, OnDevice(found, device), spec)


def golden_by(image: Array, predict: Predictor, spec: InputSpec) -> Golden:
    one = fit(image, spec)
    return Golden(image, assign.labels(predict(one.pixels[None]).scores[0], one.source, one.box))


def _predicted(predict: Predictor, images: Images, spec: InputSpec, workers: int) -> Iterator[_Seen]:
    number = 0
    for some in batched(fitted(images, spec, workers), _BATCH):
        scores, code = predict(np.stack([one.pixels for _, one in some]), code=True)
        if code is None:
            raise TypeError("the network answers no code")
        for (decoded, one), its_scores, its_code in zip(some, scores, code, strict=True):
            yield _Seen(number, decoded, one, its_scores, its_code)
            number += 1


class _Corpus:
    """Counts over images, which it is shown one after the other.

    places  their numbers in the folder
    """

    def __init__(
        self, found: Segmenter | Clustering, images: Images, places: list[int], exemplars: int, seed: int
    ) -> None:
        k = len(found.centroids)
        self.assignment, self.images, self.places, self.k = found.assignment, images, places, k
        self.shares, self.presence = np.zeros((len(images), k)), np.zeros(k)
        self.second = np.zeros((k, k))
        self.grid_cells, self.grid_margins = np.zeros((len(images), k)), np.zeros((len(images), k))
        self.thumbnails: list[Array] = []
        self.picker = ExemplarPicker(k, exemplars)
        cut = RegionEvidenceOptions()
        self.cut, self.seed = set(evenly(len(images), cut.images)), seed
        self.regions = RegionCollector(k, len(images), cut, seed=seed)
        self.table = np.zeros((k, len(images.class_names)), np.int64) if images.labelled else None
        self.cells: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)
        self.golden: Array | None = None
        self._worth = (False, -1.0)

    def add(self, seen: _Seen) -> None:
        """One image."""
        image, valid = seen.decoded.image, seen.decoded.valid
        margin = assign.margin(seen.scores, seen.code, seen.scores.shape[1:], assignment=self.assignment)
        self._count_cells(seen, validity.cells(valid, margin.shape))
        box = seen.one.box
        known = validity.cells(valid, assign.cells(margin.shape, box))
        tally = familiarity.tally(seen.scores, seen.code, known, assignment=self.assignment, box=box)
        self.grid_cells[seen.number], self.grid_margins[seen.number] = tally.cells[: self.k], tally.margins[: self.k]
        height, width = seen.one.pixels.shape[:2]
        labels = validity.ignored(assign.labels(seen.scores, (height, width)), valid)
        counts = np.bincount(labels[labels != IGNORED], minlength=self.k)
        if seen.number in self.cut:
            self.regions.show(seen.number, seen.one.pixels, labels, seen.code)
        self.shares[seen.number] = counts / max(1, counts.sum())  # every image weighs the same, whatever its size
        self.presence += counts > 0
        self.thumbnails.append(thumbnail(image))
        self.picker.show(seen.number, image, labels, margin, seen.code)
        # The surest image: rounding on another machine moves the fewest of its labels. One without gaps, if any is.
        worth = valid is None, float(margin.mean())
        if seen.number < _GOLDEN_AMONG and worth > self._worth:
            self._worth, self.golden = worth, image
        if self.table is not None:
            predicted = assign.labels(seen.scores, (image.shape[0], image.shape[1]), seen.one.box)
            truth = validity.ignored(self.images.labels(seen.number), valid)
            self.table += metrics.confusion(predicted, truth, self.k, self.table.shape[1])

    def _count_cells(self, seen: _Seen, known: Array | None) -> None:
        place = slice(None) if known is None else known.ravel()
        two = np.argpartition(-seen.scores.reshape(self.k, -1)[:, place], 1, axis=0)[:2]
        self.second += np.bincount(two[0] * self.k + two[1], minlength=self.k**2).reshape(self.k, self.k)
        if len(self.cells) < _COMPARED_IMAGES:
            rows = torch.from_numpy(seen.code.reshape(len(seen.code), -1)[:, place].T)
            if len(rows):
                flat = F.normalize(rows, dim=1)
                self.cells.append(flat[torch.randint(len(flat), (_CELLS,), generator=self.generator)])

    def stats(self, golden: Golden) -> CorpusStats:
        """What all of them come to."""
        pixels = self.shares.sum(axis=0)
        evidence = self.regions.evidence()
        return CorpusStats(
            fractions=pixels / pixels.sum(),
            presence=self.presence / len(self.images),
            exemplars=self.picker.encode(),
            golden=golden,
            scores=metrics.score(self.table) if self.table is not None else None,
            images=len(self.images),
            similarity=_similarity(torch.stack(self.cells)),
            stability=stability(torch.cat(self.cells), self.k, seeds=_SEEDS) if self._enough else 1.0,
            second=self.second / np.maximum(self.second.sum(axis=1, keepdims=True), 1),
            photos=PhotoStats(
                np.array(self.places),
                self.shares.astype(np.float32),
                self.grid_cells,
                self.grid_margins,
                np.stack(self.thumbnails),
            ),
            apart=None if evidence is None else belonging.distances(evidence, seed=self.seed),
        )

    @property
    def _enough(self) -> bool:
        return len(self.cells) * _CELLS > self.k


def _similarity(cells: Tensor) -> dict[str, list[float]]:
    """cells  float32 [n, m, D], length 1."""
    within = cells @ cells.transpose(1, 2)
    alone = ~torch.eye(cells.shape[1], dtype=torch.bool)
    between = torch.einsum("nmd,nmd->nm", cells, cells.roll(1, 0))
    found = {"within": within[:, alone], "between": between}
    return {name: (torch.histc(c.float(), _BINS, -1, 1) / c.numel()).tolist() for name, c in found.items()}


def _small(image: Array, short_side: int) -> Array:
    """The image with a short side of at most so many pixels: a bundle carries it to every machine."""
    height, width = image.shape[:2]
    taken = min(MAX_GOLDEN_SIDE_PX / max(height, width), math.sqrt(0.99 * MAX_GOLDEN_PX / (height * width)))
    scale = min(short_side / min(height, width), taken)
    if scale >= 1:
        return image
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
