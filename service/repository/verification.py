"""Verification: a bundle's folder → a network that has shown it computes here what training computed.

Knows nothing of what is served already, or of how many: one folder, one verdict.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from models.bundle import Bundle, BundleError
from models.errors import TesseraError
from models.inference import AGREEMENT, self_test
from service.engines.base import Engine, first_line
from service.repository.trust import TrustList
from service.repository.watched_engine import WatchedEngine
from service.scheduling.background import as_exception

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


def read(folder: Path, trust: TrustList) -> Bundle:
    """The bundle in a folder. Raises BundleError, whatever goes wrong with its files."""
    try:
        return Bundle.load(folder, lambda digest: trust.check(folder.name, digest))
    except OSError as error:  # its own words would name this machine's paths
        raise BundleError(f"{folder.name}: a file cannot be read: {error.strerror}") from None
    except TesseraError:
        raise
    except Exception as error:  # of a parser, or for lack of memory
        log.exception("%s failed", folder.name)
        raise BundleError(f"{folder.name}: it cannot be read: {first_line(error)}") from None


def verify(
    bundle: Bundle, open_engine: Callable[[Bundle], Engine], watch: Callable[[Engine], WatchedEngine]
) -> tuple[WatchedEngine, float]:
    """An engine that repeats the golden image and has run at the declared size, and how well it agrees, 0..1.

    watch  called once it is open: what comes back runs it

    Raises BundleError, or what `open_engine` says of this machine, whatever goes wrong: nothing is held then.
    """
    watched = None
    try:
        engine = open_engine(bundle)
        watched = watch(engine)
        agreement = self_test(bundle, watched, AGREEMENT if engine.exact else _LEAST)
        if (size := bundle.manifest.input.size) not in engine.shapes:
            watched.warm([size])
        return watched, agreement
    except BaseException as error:
        if watched is not None:
            watched.close()
        if isinstance(error, TesseraError):
            raise
        log.error("%s failed", bundle.ref, exc_info=error)
        raise BundleError(f"{bundle.ref}: its network does not run here: {first_line(as_exception(error))}") from None
