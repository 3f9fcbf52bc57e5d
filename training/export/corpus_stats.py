"""What the finished network makes of its training images, in one pass over them.

Knows nothing of training or bundles: a segmenter and images in; shares, patches and scores out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from models import assign
from models.bundle import MAX_GOLDEN_PX, MAX_GOLDEN_SIDE_PX, Golden
from models.preprocess import Fit, InputSpec, fit, resize
from models.types import Array
from training.clustering.agreement import stability
from training.data import validity
from training.data.images import Images
from training.data.label_maps import IGNORED
from training.data.preprocess import fitted
from training.data.synthetic import street
from training.discovery.segmenter import Segmenter
from training.evaluation import metrics
from training.export.exemplars import ExemplarPicker
from training.progress import Progress

_IMAGES = 2000  # drawn evenly from more; shares then move by less than a percent
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
    """

    fractions: Array
    presence: Array
    exemplars: dict[int, list[bytes]]
    golden: Golden
    scores: metrics.Scores | None
    images: int
    similarity: dict[str, list[float]]
    stability: float

    @property
    def entropy(self) -> float:
        """Evenness of cluster use: 1 when all are used alike, 0 when one takes everything."""
        used = self.fractions[self.fractions > 0]
        return float(-(used * np.log(used)).sum() / math.log(len(self.fractions)))


@torch.inference_mode()
def measure(
    found: Segmenter,
    spec: InputSpec,
    images: Images,
    *,
    exemplars: int,
    device: torch.device,
    console: Console,
    seed: int = 0,
    workers: int = 2,
) -> CorpusStats:
    """One pass over the training images, at most about two thousand of them.

    exemplars  patches kept per cluster; with 0 nothing in the answer shows a training image: mean patches, a drawn
               golden image
    """
    found.encoder.eval().to(device)
    k = len(found.centroids)
    every = max(1, math.ceil(len(images) / _IMAGES))
    images = images.subset(range(0, len(images), every)) if every > 1 else images
    pixels, holds = np.zeros(k), np.zeros(k)
    picker = ExemplarPicker(k, exemplars)
    table = np.zeros((k, len(images.class_names)), np.int64) if images.labelled else None
    golden: tuple[bool, float, Array] | None = None
    cells: list[Tensor] = []
    generator = torch.Generator().manual_seed(seed)
    with Progress(console, "measuring", len(images)) as bar:
        for i, (decoded, one) in enumerate(fitted(images, spec, workers)):
            image, valid = decoded.image, decoded.valid
            scores, sure, code = _scores(found, one, device)
            if len(cells) < _COMPARED_IMAGES and len(known := validity.rows(code, valid)):
                flat = F.normalize(known, dim=1)
                cells.append(flat[torch.randint(len(flat), (_CELLS,), generator=generator)])
            size = one.pixels.shape[:2]
            labels = validity.ignored(assign.labels(scores, (size[0], size[1])), valid)
            counts = np.bincount(labels[labels != IGNORED], minlength=k)
            pixels += counts / max(1, counts.sum())  # every image weighs the same, whatever its size
            holds += counts > 0
            picker.show(i, image, labels, _enlarged(sure, labels.shape))
            # The surest image: rounding on another machine moves the fewest of its labels. One without gaps, if any is.
            worth = valid is None, float(sure.mean())
            if i < _GOLDEN_AMONG and (golden is None or worth > golden[:2]):
                golden = *worth, image
            if table is not None:
                source = (image.shape[0], image.shape[1])
                predicted = assign.labels(scores, source, one.box)
                table += metrics.confusion(predicted, validity.ignored(images.labels(i), valid), k, table.shape[1])
            bar.advance()
    shown = street() if golden is None or not exemplars else _small(golden[2], min(spec.size))
    return CorpusStats(
        fractions=pixels / pixels.sum(),
        presence=holds / len(images),
        exemplars=picker.encode(),
        golden=golden_of(shown, found, spec, device),
        scores=metrics.score(table) if table is not None else None,
        images=len(images),
        similarity=_similarity(torch.stack(cells)),
        stability=stability(torch.cat(cells), k, seeds=_SEEDS) if len(cells) * _CELLS > k else 1.0,
    )


@torch.inference_mode()
def golden_of(image: Array, found: Segmenter, spec: InputSpec, device: torch.device) -> Golden:
    """An image RGB uint8 [H, W, 3], and what the network says of it."""
    one = fit(image, spec)
    scores, _, _ = _scores(found, one, device)
    return Golden(image, assign.labels(scores, one.source, one.box))


def _scores(found: Segmenter, one: Fit, device: torch.device) -> tuple[Array, Array, Tensor]:
    """Scores float32 [K, h, w] of one image, by how much the best beats the second [h, w], the code [D, h, w]."""
    code = found.encoder(torch.tensor(one.pixels)[None].to(device))[0].float()
    scores = torch.einsum("kd,dhw->khw", found.centroids.to(device), code)
    similarity = scores / code.norm(dim=0).clamp(min=1e-10) if found.assignment == "cosine" else scores
    best = similarity.topk(2, dim=0).values
    return scores.cpu().numpy(), (best[0] - best[1]).cpu().numpy(), code.cpu()


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


def _enlarged(sure: Array, size: tuple[int, ...]) -> Array:
    rows = np.arange(size[0]) * sure.shape[0] // size[0]
    columns = np.arange(size[1]) * sure.shape[1] // size[1]
    grown: Array = sure[rows][:, columns]
    return grown
