"""The clusters of a trained network: the method's own, or the pipeline's.

Knows nothing of bundles.
"""

from dataclasses import replace
from typing import Any

from models.errors import TesseraError
from models.nets.encoder import Encoder
from models.terminal.progress import say
from training import distributed
from training.config import facts
from training.config.run import Run
from training.data.preprocess import input_spec
from training.discovery import choose_k, code_sample
from training.discovery.cluster_codes import cluster
from training.discovery.consensus import vote
from training.discovery.crop_stability import crop_stability, labeler
from training.discovery.distill import distill
from training.discovery.merged import merged
from training.discovery.segmenter import Segmenter
from training.methods.base import Method


def discover(run: Run, method: Method[Any]) -> Segmenter:
    """The method's own clusters, or the pipeline's, where the method has none or [clusters] asks for more.

    What the codes say of the number of clusters is told and noted; where it is left to them (`clusters.k = "auto"`),
    that many are made of the codes, and the method's own are not used. A sample of the codes stays in the run.
    """
    section = run.recipe.clusters
    encoder = method.encoder().eval()
    anew = section.merge or section.distill_steps or section.unit == "region" or section.k == "auto"
    own = None if anew else method.centroids()
    if own is None and not section.distill_steps and not section.merge:
        encoder.position = section.position
    if section.k == "auto":
        if (proposal := _propose(encoder, run)) is None:
            raise TesseraError(
                "there are too few codes to tell how many clusters they have: set clusters.k to a number"
            )
        run = _settled(run, proposal.k)
    if own is not None:
        found = Segmenter(encoder, own, method.assignment, method.temperature)
    elif section.merge:
        found = merged(encoder, method.temperature, run)
    elif section.distill_steps:
        cache, voted = vote(encoder, run)
        found = distill(encoder, cache, voted.soft, method.temperature, run, voted.agreement)
    else:
        centroids = cluster(encoder, input_spec(encoder, run.recipe.input.size), run)
        found = Segmenter(encoder, centroids, "cosine", method.temperature)
    if section.k != "auto" or section.distill_steps:
        _propose(found.encoder, run)
    spec = input_spec(found.encoder, run.recipe.input.size)
    label = labeler(found, spec, run.device)
    stable = distributed.from_main(lambda: crop_stability(label, run.images, run.recipe.seed))
    facts.note(run, "crops", {"stable": round(stable, 4)})
    say(run.console, f"of a crop's pixels {stable:.0%} are in the same cluster as when the whole image is seen")
    return found


def _propose(encoder: Encoder, run: Run) -> choose_k.Proposal | None:
    """What the codes say of K, told and noted; they stay in the run. None: they are too few."""
    return distributed.from_main(lambda: _proposed(encoder, run))


def _proposed(encoder: Encoder, run: Run) -> choose_k.Proposal | None:
    codes = code_sample.of_run(encoder, input_spec(encoder, run.recipe.input.size), run)
    found = choose_k.propose(codes.views, codes.of, seed=run.recipe.seed)
    if found is None:
        return None
    say(run.console, f"how many clusters: {found.sentence}")
    facts.note(run, "k_curve", found.facts())
    return found


def _settled(run: Run, k: int) -> Run:
    """The run with that many clusters."""
    recipe = run.recipe
    return replace(run, recipe=recipe.model_copy(update={"clusters": recipe.clusters.model_copy(update={"k": k})}))
