"""How much of a label map stays as it is when only a part of the image is seen: told of every run, without a label.

Knows nothing of how clusters were found, or of bundles.
"""

import numpy as np
import torch

from models import assign
from models.preprocess import InputSpec, fit
from models.types import Array
from training.config.run import Run
from training.data.images import evenly
from training.discovery.segmenter import Segmenter

_IMAGES = 40
_SIDE = 0.75  # of the image's height and width, that a crop shows


@torch.inference_mode()
def crop_stability(found: Segmenter, spec: InputSpec, run: Run) -> float:
    """Share of the pixels of a crop that the crop alone and the whole image put into one cluster: 0..1.

    Of 40 images, drawn evenly, one crop each of three quarters of either side, at a place that the seed decides. Both
    are brought to the network's size, so that things in the crop are larger: a network that tells by size or by place
    in the image loses here.
    """
    encoder = found.encoder.eval().to(run.device)
    centroids = found.compared.to(run.device)
    random = np.random.default_rng(run.recipe.seed)
    shares = []

    def labels(image: Array) -> Array:
        one = fit(image, spec)
        code = encoder(torch.from_numpy(one.pixels.copy())[None].to(run.device)).float()
        if found.assignment == "cosine":
            code = torch.nn.functional.normalize(code, dim=1)
        scores = torch.einsum("kd,dhw->khw", centroids, code[0]).cpu().numpy()
        return assign.labels(scores, one.source, one.box)

    for number in evenly(len(run.images), min(_IMAGES, len(run.images))):
        image = run.images[number]
        rows, columns = (_part(side, random) for side in image.shape[:2])
        seen = labels(np.ascontiguousarray(image[rows, columns]))
        shares.append(float((seen == labels(image)[rows, columns]).mean()))
    return float(np.mean(shares))


def _part(side: int, random: np.random.Generator) -> slice:
    length = max(1, round(_SIDE * side))
    first = int(random.integers(0, side - length + 1))
    return slice(first, first + length)
