"""Codes of a whole corpus, and clusters of them for methods that learn none themselves.

Knows nothing of methods or bundles: an encoder and images in, centroids out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.image import Fit, InputSpec, fit
from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from training.clusters import kmeans
from training.consensus import four_by_three
from training.datasets import Images
from training.prefetch import prefetch
from training.progress import Progress
from training.regions import RegionOptions, open_regions, region_codes
from training.run import Run

_POINTS = 400_000  # k-means of more finds the same centroids
_IMAGES = 5000
_LONGEST_SIDES = 4  # short sides: a panorama beyond 4:1 is squeezed rather than let it take all memory


def input_spec(encoder: Encoder, size: int) -> InputSpec:
    """How images reach this encoder: short side `size`, sides that are whole cells of its coarsest map.

    The long side ends where the head has as many tokens as it may have, if it says so (`max_tokens`).
    """
    backbone = encoder.backbone
    multiple, longest = backbone.stride, _LONGEST_SIDES * size
    inner = backbone.inner if isinstance(backbone, TokenBackbone) else backbone
    if isinstance(inner, CnnBackbone):
        multiple = math.lcm(multiple, *inner.body.feature_info.reduction())
    most = getattr(encoder.head, "max_tokens", None)
    if most is not None:
        rows = math.ceil(size / multiple) * multiple // encoder.stride
        longest = min(longest, most // rows * encoder.stride // multiple * multiple)
    return InputSpec(size=(size, size), multiple=multiple, max_side_px=max(longest, multiple))


def fitted(images: Images, spec: InputSpec, workers: int) -> Iterator[tuple[np.ndarray, Fit]]:
    """Every image as it is, and as the encoder gets it; decoded ahead in threads."""

    def both(i: int) -> tuple[np.ndarray, Fit]:
        image = images[i]
        return image, fit(image, spec)

    return prefetch(both, range(len(images)), workers)


@torch.inference_mode()
def sample(encoder: Encoder, spec: InputSpec, run: Run, *, points: int = _POINTS) -> Tensor:
    """Codes of cells drawn evenly from all images: float32 [n, D] on the CPU, n at most about `points`."""
    generator = torch.Generator().manual_seed(run.recipe.seed)
    count = len(run.images)
    images = run.images
    if count > _IMAGES:
        images = images.subset(sorted(torch.randperm(count, generator=generator)[:_IMAGES].tolist()))
    each = max(1, points // len(images))
    encoder.eval().to(run.device)
    found = []
    with Progress(run.console, "codes", len(images)) as bar:
        for _, one in fitted(images, spec, run.recipe.workers):
            pixels = torch.tensor(one.pixels)[None].to(run.device)
            code = encoder(pixels)[0].flatten(1).T.float().cpu()
            found.append(code[torch.randperm(len(code), generator=generator)[:each]])
            bar.advance()
    return torch.cat(found)


def cluster(encoder: Encoder, spec: InputSpec, run: Run) -> Tensor:
    """Centroids of the codes as [clusters] asks, by cosine: float32 [K, D], rows of length 1.

    With `unit = "region"` every region of an image is one point, whatever its size.
    """
    section = run.recipe.clusters
    points = _regions(encoder, run) if section.unit == "region" else sample(encoder, spec, run)
    centroids, _ = kmeans(points, section.k, seed=run.recipe.seed, restarts=section.restarts, metric="cosine")
    return centroids


def _regions(encoder: Encoder, run: Run) -> Tensor:
    size = four_by_three(run.recipe.input.size)
    options = RegionOptions(size=size, scales=run.recipe.clusters.region_scales)
    paths, folder = run.images.paths, run.cache / "regions"
    cache = open_regions(paths, options, folder, run.console, workers=run.recipe.workers, read=run.images.read)
    encoder.eval().to(run.device)
    return region_codes(lambda pixels: encoder(pixels.to(run.device)), cache).codes
