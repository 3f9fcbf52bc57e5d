"""A bundle's folder → a network that has shown it computes here what training computed.

Knows nothing of what is served already, or of how many: one folder, one verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from models.bundle import Bundle, BundleError
from models.errors import TesseraError
from models.inference import AGREEMENT, Prediction, Predictor, self_test
from models.types import Array
from service.scheduling.fair_lock import FairLock

log = logging.getLogger("tessera")

# What a further network adds to the process, measured at one image: ViT-S/16 at 320×320, a file of 84 MB, 111 by
# onnxruntime, 89 by OpenVINO, 107 in bf16; the embedded default at 240×360, a file of 5 MB, 21, 22 and 14. What runs
# through it comes on top: 174 MB once the embedded default has seen 960×960.
_BYTES_PER_BYTE = 1.25
_BYTES_BESIDES = 16 * 2**20
_LEAST = 0.95  # of the golden image, from an engine that was named although it computes less exactly


def network_bytes(bundle: Bundle) -> int:
    """About what a bundle's network takes in memory."""
    return int(bundle.encoder_path.stat().st_size * _BYTES_PER_BYTE) + _BYTES_BESIDES


def read(folder: Path) -> Bundle:
    """The bundle in a folder. Raises BundleError, also for files that cannot be read."""
    try:
        return Bundle.load(folder)
    except OSError as error:  # its own words would name this machine's paths
        raise BundleError(f"{folder.name}: a file cannot be read: {error.strerror}") from None


def verify(bundle: Bundle, open_predictor: Callable[[Bundle], Predictor], lock: FairLock) -> tuple[Predictor, float]:
    """An encoder that repeats the golden image and has run at the declared size, and how well it agrees, 0..1.

    Raises BundleError, or what `open_predictor` says of this machine, whatever goes wrong: nothing is held then.
    """
    encoder = None
    try:
        encoder = open_predictor(bundle)
        least = AGREEMENT if getattr(encoder, "exact", True) else _LEAST
        agreement = self_test(bundle, exclusive(encoder, lock), least)
        warm = getattr(encoder, "warm", None)
        if warm is not None and (size := bundle.manifest.input.size) not in getattr(encoder, "shapes", ()):
            with lock:
                warm([size])
        return encoder, agreement
    except Exception as error:
        if encoder is not None:
            close(encoder)
        if isinstance(error, TesseraError):
            raise
        log.exception("%s failed", bundle.ref)
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise BundleError(f"{bundle.ref}: its network does not run here: {reason}") from None


def exclusive(encoder: Predictor, lock: FairLock) -> Predictor:
    """The encoder, taking turns while it runs on the CPU."""

    def encode(pixels: Array, *, code: bool = False) -> Prediction:
        if getattr(encoder, "provider", "cpu") != "cpu":
            return encoder(pixels, code=code)
        with lock:
            return encoder(pixels, code=code)

    return encode


def close(encoder: Predictor) -> None:
    """Gives an encoder's memory back, where it has some of its own."""
    if (end := getattr(encoder, "close", None)) is not None:
        end()
