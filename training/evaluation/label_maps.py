"""One image → its label map in every way that is compared: averaged with its mirror image or not, refined or not.

Knows nothing of ground truth. The way the service takes is one of them, and its label map is the service's.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from models import assign
from models.bundle import Bundle
from models.preprocess import Fit, fit
from models.refine import Method, Resolution, refine
from models.types import Array
from training.data.crops import square
from training.evaluation.exported import Answer, Network
from training.evaluation.linear_probe import LinearProbe
from training.evaluation.taught_classes import TaughtClasses

Protocol = Literal["served", "crop"]


class Edges(NamedTuple):
    """How a label map is refined along the photo's edges, and at whose size: see models.refine."""

    method: Method = "dense"
    resolution: Resolution = "input"

    @property
    def name(self) -> str:
        """The dense CRF is "crf", the others go by their own names; "fast at source" where it is the photo's size."""
        how = "crf" if self.method == "dense" else self.method
        return how if self.resolution == "input" else f"{how} at {self.resolution}"


@dataclass(frozen=True)
class Way:
    """How a label map is made; `name` is what tables call it."""

    probe: bool = False
    flip: bool = False
    edges: Edges | None = None
    taught: bool = False

    @property
    def name(self) -> str:
        """ "plain", "flip", "crf", "flip + fast"; before it "linear probe, " where labels were used, "classes, " where
        people taught them.
        """
        words = (["flip"] if self.flip else []) + ([self.edges.name] if self.edges else [])
        how = " + ".join(words) or "plain"
        return f"linear probe, {how}" if self.probe else f"classes, {how}" if self.taught else how


class Made(NamedTuple):
    """A label map uint8 [H, W], and the seconds from fitted pixels to it."""

    labels: Array
    seconds: float


@dataclass(frozen=True)
class Mapper:
    """Label maps of one bundle.

    networks  by whether they average with the mirrored image
    taught    classes in place of clusters, where a file of them was given
    """

    bundle: Bundle
    networks: Mapping[bool, Network]
    probe: LinearProbe | None = None
    taught: TaughtClasses | None = None

    def ways(self, edges: Sequence[Edges]) -> list[Way]:
        """All there are, clusters first, plain first, then refined in each of the ways given."""
        heads = [(False, False), *([(False, True)] if self.taught else []), *([(True, False)] if self.probe else [])]
        return [
            Way(probe, flip, refine, taught)
            for probe, taught in heads
            for refine in (None, *edges)
            for flip in sorted(self.networks)
        ]

    def values(self, way: Way, classes: int) -> int:
        """How many values a way's label maps may hold; `classes` of the labels, which a probe tells apart."""
        if way.probe:
            return classes
        return len(self.taught.names) if way.taught and self.taught else len(self.bundle.manifest.clusters)

    def __call__(self, image: Array, ways: Sequence[Way]) -> dict[Way, Made]:
        """image  RGB uint8 [H, W, 3]; every label map has its size."""
        fitted = fit(image, self.bundle.manifest.input)
        answers: dict[bool, tuple[Answer, float]] = {}
        for flip in {way.flip for way in ways}:
            began = time.perf_counter()
            answers[flip] = self.networks[flip](fitted.pixels), time.perf_counter() - began
        found = {}
        for way in ways:
            answer, took = answers[way.flip]
            began = time.perf_counter()
            labels = self.read(answer, fitted, image, way)
            found[way] = Made(labels, took + time.perf_counter() - began)
        return found

    def read(self, answer: Answer, fitted: Fit, photo: Array, way: Way) -> Array:
        """The label map uint8 [H, W] of what the network said of a photo uint8 [H, W, 3], fitted to its size."""
        spec, scores = self.bundle.manifest.code, answer.scores
        if way.probe and self.probe is not None:
            scores = self.probe.logits(answer.code)
            spec = spec.model_copy(update={"temperature": 1.0, "assignment": "dot", "interpolation": "bilinear"})
        if way.taught and self.taught is not None:
            scores = self.taught.classifier.scores(answer.code, scores, fitted.box)
            temperature = self.taught.classifier.temperature or spec.temperature
            spec = spec.model_copy(update={"assignment": "cosine", "temperature": temperature})
        if way.edges is None:
            return assign.labels(scores, fitted.source, fitted.box, interpolation=spec.interpolation)
        method, resolution = way.edges
        return refine(scores, answer.code, fitted, spec, method=method, resolution=resolution, photo=photo)


def framed(image: Array, labels: Array, protocol: Protocol, size: tuple[int, int]) -> tuple[Array, Array]:
    """An image RGB uint8 [H, W, 3] and its label map as a protocol shows them to the network.

    served  as they are
    crop    the short side at min(size), then the central square; the label map by nearest neighbor. Source: STEGO,
            PiCIE and CAUSE score like this.
    """
    if protocol == "served":
        return image, labels
    side = min(size)
    return square(image, side), square(labels, side, "nearest")


def enlarged(labels: Array, size: tuple[int, ...]) -> Array:
    """A label map [h, w] at another size (H, W), by nearest neighbor."""
    if labels.shape == size:
        return labels
    return np.asarray(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
