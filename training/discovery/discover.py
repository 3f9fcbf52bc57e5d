"""The clusters of a trained network: the method's own, or the pipeline's.

Knows nothing of bundles.
"""

from typing import Any

from training.config.run import Run
from training.data.preprocess import input_spec
from training.discovery.cluster_codes import cluster
from training.discovery.consensus import distill
from training.discovery.segmenter import Segmenter
from training.methods.base import Method


def discover(run: Run, method: Method[Any]) -> Segmenter:
    """The method's own clusters, or the pipeline's, where the method has none or [clusters] asks for more."""
    section = run.recipe.clusters
    own = method.centroids() if section.unit == "pixel" and not section.distill_steps else None
    encoder = method.encoder().eval()
    if own is not None:
        return Segmenter(encoder, own, method.assignment, method.temperature)
    if section.distill_steps:
        return distill(encoder, method.temperature, run)
    encoder.position = section.position
    found = cluster(encoder, input_spec(encoder, run.recipe.input.size), run)
    return Segmenter(encoder, found, "cosine", method.temperature)
