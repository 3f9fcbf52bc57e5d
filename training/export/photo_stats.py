"""What single photos say of a folder: which are varied, which are odd, which are the same picture again.

Knows nothing of files, networks or pages: a few numbers of every measured photo in, places of photos out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from models.familiarity import quantiles as quantiles_of
from models.familiarity import sureness as sureness_of
from models.manifest import Familiarity
from models.preprocess import resize
from models.types import Array
from training.clustering.k_center import k_center

_THUMB_PX = 16
_SAME = 4.0  # of 255: two JPEGs of one picture differ by 1 to 3, two frames of one standing camera by 5 and more
_SHOWN, _ODD = 8, 6  # on a page
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)


class Pair(NamedTuple):
    """Two photos, by their numbers in the folder, and how far their thumbnails differ (root mean square, of 255)."""

    first: int
    second: int
    difference: float


@dataclass(frozen=True)
class PhotoStats:
    """What was seen of each of n photos.

    numbers     int64 [n] in the folder
    shares      float32 [n, K], of every cluster in its pixels that hold data; a row sums to 1, or to 0
    cells       float64 [n, K], how many cells of the patch grid every cluster has;  margins  the sums of theirs
    thumbnails  uint8 [n, 16, 16, 3]
    """

    numbers: Array
    shares: Array
    cells: Array
    margins: Array
    thumbnails: Array

    def varied(self, count: int) -> list[int]:
        """Numbers of photos that show different things: first the commonest mixture of clusters, then the farthest."""
        middle = int(((self.shares - self.shares.mean(axis=0)) ** 2).sum(axis=1).argmin())
        return [int(self.numbers[place]) for place in k_center(self.shares, count, first=middle)]

    def odd(self, count: int) -> list[tuple[int, float]]:
        """Numbers and sureness of the least familiar photos, the least first."""
        places = np.argsort(self.sureness, kind="stable")[:count]
        return [(int(self.numbers[place]), float(self.sureness[place])) for place in places]

    @cached_property
    def sureness(self) -> Array:
        """How sure the network is of each, float64 [n]: see `models.familiarity`."""
        return sureness_of(self.cells, self.margins, self.shares.sum(axis=0) / self.shares.sum())

    @property
    def familiarity(self) -> Familiarity:
        """What a bundle keeps of them, so that a new photo can be held against them."""
        return familiarity_of(self.sureness)

    def familiarity_by(self, fractions: Sequence[float]) -> Familiarity:
        """The same for a bundle whose manifest names other shares [K] of the clusters than these photos have."""
        return familiarity_of(sureness_of(self.cells, self.margins, fractions))

    @property
    def quantiles(self) -> dict[str, float]:
        """Some of them for people, by name, and `threshold`: a photo below it is unlike all but 2 % of these."""
        found = {f"q{round(100 * q)}": float(np.quantile(self.sureness, q)) for q in _QUANTILES}
        return {**found, "threshold": self.familiarity.threshold}

    def facts(self) -> dict[str, Any]:
        """What a page shows of them, by their numbers."""
        return {
            "varied": self.varied(_SHOWN),
            "odd": self.odd(_ODD),
            "near_duplicates": [list(pair) for pair in self.near_duplicates()],
        }

    def near_duplicates(self) -> list[Pair]:
        """Pairs of photos whose thumbnails are all but equal, the likest first; each photo with its likest one only."""
        rows = self.thumbnails.reshape(len(self.numbers), -1).astype(np.float32)
        squared = (rows**2).sum(axis=1)
        found = []
        for place in range(1, len(rows)):
            apart = np.maximum(squared[:place] + squared[place] - 2 * rows[:place] @ rows[place], 0)
            likest = int(apart.argmin())
            difference = float(np.sqrt(apart[likest] / rows.shape[1]))
            if difference <= _SAME:
                found.append(Pair(int(self.numbers[likest]), int(self.numbers[place]), difference))
        return sorted(found, key=lambda pair: pair.difference)


def familiarity_of(sureness: Array) -> Familiarity:
    """What a bundle keeps of the sureness float [n] of its training images."""
    quantiles, threshold = quantiles_of(sureness)
    return Familiarity(quantiles=tuple(quantiles), threshold=threshold)


def thumbnail(image: Array) -> Array:
    """uint8 [16, 16, 3] of RGB uint8 [H, W, 3], whatever its shape."""
    return resize(image, (_THUMB_PX, _THUMB_PX))
