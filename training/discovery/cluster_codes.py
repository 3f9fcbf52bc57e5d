"""Codes of a whole corpus, and clusters of them for methods that learn none themselves.

Knows nothing of methods or bundles: an encoder and images in, centroids out.
"""

import torch
from torch import Tensor

from models.nets.encoder import Encoder
from models.preprocess import InputSpec
from models.terminal.progress import Progress
from training import distributed
from training.clustering.kmeans import kmeans
from training.config.run import Run
from training.data import validity
from training.data.preprocess import fitted, four_by_three
from training.data.regions import RegionCache, RegionOptions
from training.features.region_codes import RegionCodes, region_codes

_POINTS = 400_000  # k-means of more finds the same centroids
_IMAGES = 5000


@torch.inference_mode()
def sample(encoder: Encoder, spec: InputSpec, run: Run, *, points: int = _POINTS) -> Tensor:
    """Codes of cells with data, drawn evenly from all images: float32 [n, D] on the CPU, n at most about `points`."""
    generator = torch.Generator().manual_seed(run.recipe.seed)
    count = len(run.images)
    images = run.images
    if count > _IMAGES:
        images = images.subset(sorted(torch.randperm(count, generator=generator)[:_IMAGES].tolist()))
    each = max(1, points // len(images))
    encoder.eval().to(run.device)
    found = []
    with Progress(run.console, "codes", len(images)) as bar:
        for decoded, one in fitted(images, spec, run.recipe.workers):
            pixels = torch.tensor(one.pixels)[None].to(run.device)
            code = validity.rows(encoder(pixels)[0].float().cpu(), decoded.valid)
            found.append(code[torch.randperm(len(code), generator=generator)[:each]])
            bar.advance()
    return torch.cat(found)


def cluster(encoder: Encoder, spec: InputSpec, run: Run) -> Tensor:
    """Centroids of the codes as [clusters] asks, by cosine: float32 [K, D], rows of length 1.

    With `unit = "region"` every region of an image is one point, whatever its size.
    """
    section = run.recipe.clusters

    def found() -> Tensor:
        by_region = section.unit == "region"
        points = coded_regions(encoder, run, most=_IMAGES)[1].codes if by_region else sample(encoder, spec, run)
        return kmeans(points, section.count, seed=run.recipe.seed, restarts=section.restarts, metric="cosine")[0]

    return distributed.from_main(found)


def coded_regions(encoder: Encoder, run: Run, *, most: int | None = None) -> tuple[RegionCache, RegionCodes]:
    """The regions of the run's images at the scales of [clusters], and their codes; of `most` images, drawn evenly."""
    size, scales = four_by_three(run.recipe.input.size, encoder.backbone.multiple), run.recipe.clusters.region_scales
    cache = run.regions(RegionOptions(size=size, scales=scales), most=most)
    encoder.eval().to(run.device)
    return cache, region_codes(lambda pixels: encoder(pixels.to(run.device)), cache)
