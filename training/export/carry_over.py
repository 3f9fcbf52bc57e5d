"""Which clusters of a new network are which of an old bundle's: both are shown the same images.

Knows nothing of training. The matching itself is training/discovery/align.py's.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from models import assign
from models.bundle import Bundle
from models.inference import Predictor
from models.preprocess import InputSpec, fit
from models.terminal.progress import Progress, say
from models.types import Array
from training.config import facts
from training.config.run import Run
from training.data import validity
from training.data.images import Images, evenly
from training.discovery import code_sample
from training.discovery.align import Alignment, align, shared
from training.discovery.code_sample import Remembered
from training.discovery.segmenter import Segmenter
from training.evaluation.exported import Exported
from training.export.corpus_stats import OnDevice

_IMAGES = 48


def carry_over(
    bundle: Bundle, old: Predictor, new: Predictor, k: int, spec: InputSpec, images: Images, run: Run
) -> Alignment:
    """Shows both networks some of the images; tells what is new, split, joined or gone, and notes it.

    bundle  the old one, whose network is `old`;  new  has k clusters and sees images as `spec` says
    """
    table = shared(_maps(bundle, old, new, spec, images, run), len(bundle.manifest.clusters), k)
    found = align(table, bundle.manifest.clusters)
    say(run.console, f"{len(found.matched)} of {k} clusters keep name and color of {bundle.manifest.name}")
    for sentence in found.said:
        say(run.console, f"  {sentence}")
    matched = [{"id": i, "name": name, "iou": round(iou, 4)} for i, name, iou in found.matched]
    facts.note(run, "aligned", {"to": bundle.ref, "matched": matched, "said": list(found.said)})
    return found


def carried_over(found: Segmenter, spec: InputSpec, run: Run) -> tuple[Segmenter, tuple[tuple[str, str], ...]]:
    """A segmenter with its clusters in the order of those of the bundle that the recipe names; their names and colors.

    Raises BundleError where there is no such bundle any more.
    """
    bundle, compared = Bundle.load(run.recipe.export.align_to), found.compared.detach().float().cpu()
    codes = code_sample.of_run(found.encoder, spec, run)
    new = Remembered(codes, compared.numpy(), OnDevice(found, run.device))
    old = Exported(bundle.encoder_bytes(), threads=torch.get_num_threads())
    kept = carry_over(bundle, old, new, len(compared), spec, run.images.subset(codes.images.tolist()), run)
    return replace(found, centroids=found.centroids[list(kept.order)]), kept.names


def _maps(
    bundle: Bundle, old: Predictor, new: Predictor, spec: InputSpec, images: Images, run: Run
) -> Iterator[tuple[Array, Array]]:
    some = images.subset(evenly(len(images), _IMAGES))
    with Progress(run.console, "comparing", len(some)) as bar:
        for i in range(len(some)):
            decoded = some.load(i)
            before, after = fit(decoded.image, bundle.manifest.input), fit(decoded.image, spec)
            size = after.filled.shape[0], after.filled.shape[1]
            maps = [
                assign.labels(network(one.pixels[None]).scores[0], size, one.box)
                for network, one in ((old, before), (new, after))
            ]
            yield validity.ignored(maps[0], decoded.valid), validity.ignored(maps[1], decoded.valid)
            bar.advance()
