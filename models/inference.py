"""One image through one network, without a server: what a network answers, and whether it computes what training did.

Knows nothing of HTTP, queues or runtimes: a network is handed in.
"""

from typing import NamedTuple, Protocol

import numpy as np

from models import assign
from models.bundle import Bundle, BundleError
from models.native import bindings
from models.preprocess import Fit, fit
from models.types import Array

AGREEMENT = 0.99  # of the golden image's pixels


class Prediction(NamedTuple):
    """What a network says of a batch: scores float32 [B, K, h, w]; code float32 [B, D, h, w] when asked."""

    scores: Array
    code: Array | None = None


class Predictor(Protocol):
    """Anything that turns pixels into scores: an onnxruntime session, a torch module, a test double."""

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """pixels uint8 [B, H, W, 3] → Prediction; `code` is filled only when asked for."""
        ...


def finite(prediction: Prediction) -> bool:
    """Whether all that a network said is numbers: of NaN and infinity no label can be made."""
    for array in prediction:
        if array is not None and not (np.isfinite(array).all() if (sure := bindings.finite(array)) is None else sure):
            return False
    return True


def segment(bundle: Bundle, encode: Predictor, image: Array) -> Array:
    """The label map of one image: the whole way, without a server.

    image    RGB uint8 [H, W, 3]
    returns  uint8 [H, W]
    """
    fitted = fit(image, bundle.manifest.input)
    return _labels(bundle, encode(fitted.pixels[None]), fitted)


def self_test(bundle: Bundle, encode: Predictor, least: float = AGREEMENT) -> float:
    """Replay the golden image: the share of its pixels that agree.

    Raises BundleError below `least`, and for NaN or infinity: a wrong provider, a broken driver, a stale file.
    """
    fitted = fit(bundle.golden.image, bundle.manifest.input)
    prediction = encode(fitted.pixels[None], code=True)
    if not finite(prediction):
        raise BundleError(
            f"{bundle.ref}: golden image: its network answers NaN or infinity: this machine does not compute what"
            " training computed"
        )
    agree = float((_labels(bundle, prediction, fitted) == bundle.golden.labels).mean())
    if agree < least:
        raise BundleError(
            f"{bundle.ref}: golden image: {agree:.1%} of the pixels agree, {least:.0%} are needed:"
            " this machine does not compute what training computed"
        )
    return agree


def _labels(bundle: Bundle, prediction: Prediction, fitted: Fit) -> Array:
    how = bundle.manifest.code.interpolation
    return assign.labels(prediction.scores[0], fitted.source, fitted.box, interpolation=how)
