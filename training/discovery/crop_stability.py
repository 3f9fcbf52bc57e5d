"""How much of a label map stays as it is when only a part of the image is seen: told of every run, without a label.

Knows nothing of how clusters were found, or of bundles.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from models import assign
from models.preprocess import InputSpec, fit
from models.types import Array
from training.data.images import Images, evenly
from training.discovery.segmenter import Segmenter

_IMAGES = 40
_SIDE = 0.75  # of the image's height and width, that a crop shows


def crop_stability(label: Callable[[Array], Array], images: Images, seed: int) -> float:
    """Share of the pixels of a crop that the crop alone and the whole image put into one cluster: 0..1.

    label  an image, RGB uint8 [H, W, 3], → its label map, uint8 [H, W]

    Of 40 images, drawn evenly, one crop each of three quarters of either side, at a place that the seed decides. Both
    are brought to the network's size, so that things in the crop are larger: a network that tells by size or by place
    in the image loses here.
    """
    random = np.random.default_rng(seed)
    shares = []
    for number in evenly(len(images), min(_IMAGES, len(images))):
        image = images[number]
        rows, columns = (_part(side, random) for side in image.shape[:2])
        seen = label(np.ascontiguousarray(image[rows, columns]))
        shares.append(float((seen == label(image)[rows, columns]).mean()))
    return float(np.mean(shares))


def labeler(found: Segmenter, spec: InputSpec, device: torch.device) -> Callable[[Array], Array]:
    """An image → its label map, by a network that is not exported yet."""
    encoder, centroids = found.encoder.eval().to(device), found.compared.to(device)

    @torch.inference_mode()
    def label(image: Array) -> Array:
        one = fit(image, spec)
        code = encoder(torch.from_numpy(one.pixels.copy())[None].to(device)).float()
        if found.assignment == "cosine":
            code = F.normalize(code, dim=1)
        scores = torch.einsum("kd,dhw->khw", centroids, code[0]).cpu().numpy()
        return assign.labels(scores, one.source, one.box)

    return label


def _part(side: int, random: np.random.Generator) -> slice:
    length = max(1, round(_SIDE * side))
    first = int(random.integers(0, side - length + 1))
    return slice(first, first + length)
