"""What [clusters] with `merge` asks for: the clusters of a trained network, merged by what belongs together.

Knows nothing of methods or bundles: an encoder and the run's images in, what is exported out.
"""

import torch
from torch import Tensor

from models.nets.encoder import Encoder
from models.terminal.progress import say
from training import distributed
from training.config import facts
from training.config.run import Run
from training.data.preprocess import input_spec
from training.data.regions import RegionCache, RegionOptions
from training.discovery import region_rows
from training.discovery.classifier import fit_centroids
from training.discovery.cluster_codes import cluster, coded_regions
from training.discovery.consensus import IMAGES, grid_of
from training.discovery.distill import distill
from training.discovery.merging import Merged, merge
from training.discovery.segmenter import Segmenter
from training.features.region_codes import RegionCodes, place


def merged(encoder: Encoder, temperature: float, run: Run) -> Segmenter:
    """Pieces of the folder's regions, merged until there are K clusters; how it was done is told and noted.

    The regions are those of the first of [clusters] `region_scales`; `position` weighs their place where pieces are
    made, and nowhere else: the code stays as it is. With `distill_steps` the network learns the clusters, else they are
    named by centroids of its codes.
    """
    section = run.recipe.clusters
    cache, codes = coded_regions(encoder, run, most=IMAGES)
    codes = codes.at(0)
    if len(codes.image) < section.count:  # flat pictures, or very few: cells are points enough where regions are not
        say(run.console, f"{len(codes.image)} regions are too few for {section.count} clusters: cells are clustered")
        spec = input_spec(encoder, run.recipe.input.size)
        return Segmenter(encoder, cluster(encoder, spec, run), "cosine", temperature)
    soft = distributed.from_main(lambda: _soft(codes, cache, run))
    if section.distill_steps:
        return distill(encoder, cache, region_rows.soft_maps(soft, codes, cache, grid_of(cache)), temperature, run)
    pixels = torch.from_numpy(region_rows.sizes(codes, cache))
    return Segmenter(encoder, fit_centroids(codes.codes, soft, pixels), "cosine", temperature)


def _soft(codes: RegionCodes, cache: RegionCache, run: Run) -> Tensor:
    """The shares of every region in the clusters: float32 [R, K]."""
    section, seed = run.recipe.clusters, run.recipe.seed
    rows = region_rows.sample(codes, cache, position=section.position, contrast=RegionOptions().contrast, seed=seed)
    found = merge(rows, section.count, seed=seed)
    facts.note(run, "merging", found.facts())
    say(run.console, told(found))
    return found.soft(place(codes, section.position, codes.codes.mean(0)))


def told(found: Merged) -> str:
    """How it was done, for people."""
    runs, pieces = found.own.shape
    joined = f"{found.groups} groups, cut into " if found.groups < found.clusters else ""
    said = f"what belongs together of {runs} × {pieces} pieces: {joined}{found.clusters} clusters"
    return said if found.whole is None else f"{said}; parts of the folder agree on them to {found.whole:.2f}"
