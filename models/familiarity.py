"""How sure a network is of an image, beside how sure it was of those that it was trained on.

Knows nothing of files, networks or requests: label maps and margins on the patch grid in, one number out. No label, and
no image, is needed besides a few quantiles that training leaves in the manifest (`models.manifest.Familiarity`).

The mean margin alone does not tell street frames from other photos well (ROC-AUC .90): a meadow under a sky is as clear
as a street. So no cluster may count for more of an image than it has of the training images' pixels, which takes from
it what it shows too much of, and gives nothing for what it lacks (.99; `python -m benchmarks.familiarity`).
"""

from collections.abc import Sequence

import numpy as np

from models import assign
from models.native.bindings import Ranked
from models.types import WHOLE, Array, Box

_IDS = 256  # of a label map
PERCENTILES = 101  # quantiles that training keeps: of 0 %, 1 %, … 100 % of the images
UNLIKE = 0.02  # of the training images are called unfamiliar


class Tally:
    """An image's cells, added up by cluster, part after part.

    cells  float64 [256], how many each id has;  margins  float64 [256], the sums of theirs
    """

    def __init__(self) -> None:
        self.cells, self.margins = np.zeros(_IDS), np.zeros(_IDS)

    def add(self, labels: Array, margin: Array) -> None:
        """Some of them: ids uint8 [h, w], those of no cluster where there is no data, and margins float32 [h, w]."""
        ids = labels.ravel()
        self.cells += np.bincount(ids, minlength=_IDS)
        self.margins += np.bincount(ids, weights=margin.ravel(), minlength=_IDS)

    def join(self, other: "Tally") -> None:
        """Those of another part."""
        self.cells += other.cells
        self.margins += other.margins

    def mean_margin(self, count: int) -> float | None:
        """Over the cells of `count` clusters; None where there are none."""
        held = self.cells[:count].sum()
        return float(self.margins[:count].sum() / held) if held else None

    def sureness(self, fractions: Sequence[float]) -> float | None:
        """`sureness` of the image; None where no cell holds data."""
        cells, margins = self.cells[: len(fractions)], self.margins[: len(fractions)]
        return float(sureness(cells, margins, fractions)) if cells.any() else None


def sureness(cells: Array, margins: Array, fractions: Sequence[float] | Array) -> Array:
    """The mean margin of images, in which no cluster counts for more than its share of the training images.

    cells      [..., K], how many each cluster has;  margins  [..., K], the sums of theirs
    fractions  [K], the manifest's: share of the training pixels of every cluster
    returns    float64 [...], 0 to 1: Σ min(share in the image, share in training) × mean margin; 0 without cells
    """
    shares = cells / np.maximum(cells.sum(axis=-1, keepdims=True), 1)
    found: Array = np.clip((np.minimum(shares, fractions) * margins / np.maximum(cells, 1)).sum(axis=-1), 0.0, 1.0)
    return found


def tally(
    scores: Array,
    code: Array | None,
    known: Array | None = None,
    *,
    assignment: assign.Assignment,
    box: Box = WHOLE,
    interpolation: assign.Interpolation = "bilinear",
    ranked: Ranked | None = None,
) -> Tally:
    """The cells of one pass of the network.

    scores  float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    known   bool [h, w] of the cells in `box`: where the image holds data; None: everywhere
    ranked  of them, where it has been taken already
    """
    if ranked is None:
        size = assign.cells(scores.shape[1:], box)
        ranked = assign.ranked(scores, code, size, assignment=assignment, box=box, interpolation=interpolation)
    found = Tally()
    found.add(ranked.best if known is None else np.where(known, ranked.best, np.uint8(_IDS - 1)), ranked.margin)
    return found


def quantiles(sureness: Array) -> tuple[list[float], float]:
    """Of the training images' sureness float [n]: `PERCENTILES` values, ascending, and the threshold.

    Raises ValueError where there is no image.
    """
    if not len(sureness):
        raise ValueError("no image was measured")
    known = np.quantile(sureness, [*np.linspace(0, 1, PERCENTILES), UNLIKE])
    found = np.maximum.accumulate(known[:-1])  # rounding may bring two equal ones out of order
    return [round(float(value), 6) for value in found], round(float(known[-1]), 6)


def share_less_sure(sureness: float, quantiles: Sequence[float]) -> float:
    """The share of the training images that were less sure, 0 to 1: between two quantiles a straight line."""
    return float(np.interp(sureness, quantiles, np.linspace(0, 1, len(quantiles))))
