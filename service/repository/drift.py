"""Drift: how far what is served has moved from what the network was trained on, told without labels.

Knows nothing of images, HTTP or Prometheus: counts of pixels by cluster go in, or whether an image is familiar, and one
number comes out.
"""

from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np

from models.types import Array

WINDOW = 500
LEAST = 50


class Drift:
    """Distance of the served images' cluster shares from the training images'.

    fractions  the manifest's: share of the training pixels of every cluster, sums to 1
    window     images: each counts 1 / window, older ones fade; before there are as many, all count the same
    least      images before there is a distance

    Every image weighs the same, large or small. Any thread may add.
    """

    def __init__(self, fractions: Sequence[float], *, window: int = WINDOW, least: int = LEAST) -> None:
        self._trained = np.asarray(fractions, np.float64)
        self._served = np.zeros(len(self._trained))
        self._window, self._least = window, least
        self._lock = Lock()
        self.images = 0

    def add(self, pixels: Array) -> None:
        """One image's counts int64 [K] by the network's own cluster ids, before merges and levels.

        Pixels or cells of the patch grid: only their shares matter.
        """
        total = pixels.sum()
        if total == 0:
            return
        with self._lock:
            self.images += 1
            self._served += (pixels / total - self._served) / min(self.images, self._window)

    def seen(self) -> tuple[int, list[float]]:
        """How many of the latest images count, and their mean shares [K]."""
        with self._lock:
            return min(self.images, self._window), [float(share) for share in self._served]

    def distance(self, elsewhere: Iterable[tuple[int, Sequence[float]]] = ()) -> float | None:
        """Total variation, 0 (same shares) to 1 (nothing in common); None before `least` images.

        elsewhere  what other servers of the same network have `seen`: each counts by its images
        """
        found = [self.seen(), *elsewhere]
        images = sum(count for count, _ in found)
        if images < self._least:
            return None
        served = sum(count * np.asarray(shares) for count, shares in found) / images
        return float(np.abs(served - self._trained).sum() / 2)


class Unfamiliar:
    """Share of the served images that are unlike the training images, of which 2 % are.

    window, least  as Drift has them

    Every image weighs the same. Any thread may add.
    """

    def __init__(self, *, window: int = WINDOW, least: int = LEAST) -> None:
        self._share = 0.0
        self._window, self._least = window, least
        self._lock = Lock()
        self.images = 0

    def add(self, familiar: bool | None) -> None:
        """One image's answer; None, where nobody knows, does not count."""
        if familiar is None:
            return
        with self._lock:
            self.images += 1
            self._share += (float(not familiar) - self._share) / min(self.images, self._window)

    def seen(self) -> tuple[int, float]:
        """How many of the latest images count, and the share among them."""
        with self._lock:
            return min(self.images, self._window), self._share

    def share(self, elsewhere: Iterable[tuple[int, float]] = ()) -> float | None:
        """0 to 1; None before `least` images.

        elsewhere  what other servers of the same network have `seen`: each counts by its images
        """
        found = [self.seen(), *elsewhere]
        images = sum(count for count, _ in found)
        return sum(count * share for count, share in found) / images if images >= self._least else None
