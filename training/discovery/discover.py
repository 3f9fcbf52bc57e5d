"""The clusters of a trained network: the method's own, or the pipeline's.

Knows nothing of bundles.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from models.assign import Assignment
from models.nets.encoder import Encoder
from training.config.run import Run
from training.data.preprocess import input_spec
from training.discovery.cluster_codes import cluster
from training.discovery.consensus import distill
from training.methods.base import Method


@dataclass(frozen=True)
class Discovery:
    """What is exported: an encoder, the centroids float32 [K, D] its code meets, and how.

    agreement  of the clusterings it was distilled from, where it was
    """

    encoder: Encoder
    centroids: Tensor
    assignment: Assignment
    agreement: float | None = None


def discover(run: Run, method: Method, seconds: dict[str, float]) -> Discovery:
    """The method's own clusters, or the pipeline's, where the method has none or [clusters] asks for more."""
    began, section = time.monotonic(), run.recipe.clusters
    own = method.centroids() if section.unit == "pixel" and not section.distill_steps else None
    encoder = method.encoder().eval()
    if own is not None:
        found = Discovery(encoder, own, method.assignment)
    elif section.distill_steps:
        distilled = distill(encoder, run)
        found = Discovery(distilled.encoder, distilled.centroids, "cosine", distilled.agreement)
    else:
        encoder.position = section.position
        found = Discovery(encoder, cluster(encoder, input_spec(encoder, run.recipe.input.size), run), "cosine")
    seconds["clusters"] = time.monotonic() - began
    return found
