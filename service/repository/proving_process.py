"""What the process does that proves a bundle: the rules for its graph, then the golden image on every engine here.

Knows nothing of the server that waits for it. Every library that could open the network for serving opens it here
first; on the CPU, by one thread, whatever will serve.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from models.bundle import Bundle, BundleError
from models.errors import TesseraError
from models.inference import Prediction, Predictor, self_test
from models.types import Array
from service import engines
from service.engines.autoselect import reference_first
from service.engines.base import Kind, first_line
from service.settings import Settings

PROVED = "proved"
REFUSED, NO_MEMORY = 3, 4  # exit codes; what is refused is said on stdout
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # further ones would count against the limit without being used
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def main() -> None:
    """The process: folder, digest, bytes and seconds as arguments; the verdict on stdout and as exit code."""
    folder, digest, granted_bytes, granted_s = sys.argv[1:5]
    _ends_first()
    try:
        kinds = reference_first(list(engines.kinds().values()))
        for kind in kinds:
            for module in kind.modules:
                __import__(module)
        _limit(int(granted_bytes), int(granted_s))  # what loading the libraries took is not counted
        prove(folder, digest, kinds)
    except Exception as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            sys.exit(NO_MEMORY)
        sys.stdout.buffer.write(" ".join(_sentence(error).split()).encode(errors="replace"))
        sys.stdout.flush()
        sys.exit(REFUSED)
    print(PROVED, end="", flush=True)


def prove(folder: Path | str, digest: str, kinds: Sequence[Kind]) -> None:
    """Raises whatever is wrong with the bundle of this digest on the first of these engines.

    The others may refuse it, and are then not taken for it; here they only show that they end no process.
    """
    from models import onnx_rules

    bundle = Bundle.load(folder)
    if bundle.digest != digest:
        raise BundleError("it changed while it was loaded")
    onnx_rules.check(bundle.encoder_bytes())
    for kind in kinds:
        try:
            engine = kind.open(bundle, Settings(threads=1))
            self_test(bundle, checked(bundle, engine))
            engine.warm([bundle.manifest.input.size])
            engine.close()
        except Exception:
            if kind is kinds[0]:
                raise


def checked(bundle: Bundle, predict: Predictor) -> Predictor:
    """The predictor, its scores and code held against the manifest: shapes, and that every value is finite."""
    manifest = bundle.manifest
    lengths = {"scores": len(manifest.clusters), "code": manifest.code.dim}

    def run(pixels: Array, *, code: bool = False) -> Prediction:
        answer = predict(pixels, code=True)
        finest = [side // manifest.code.stride + 1 for side in pixels.shape[1:3]]
        for name, length in lengths.items():
            values = getattr(answer, name)
            if values.ndim != 4 or values.shape[:2] != (len(pixels), length):
                raise BundleError(f"encoder.onnx: {name} has the shape {values.shape}; {length} on axis 1 are needed")
            if values.shape[2] > finest[0] or values.shape[3] > finest[1] or not values.size:
                raise BundleError(
                    f"encoder.onnx: {name} has {values.shape[2]}×{values.shape[3]} cells for an image of"
                    f" {pixels.shape[1]}×{pixels.shape[2]}; the manifest says one every {manifest.code.stride} pixels"
                )
            if not np.isfinite(values).all():
                raise BundleError(f"encoder.onnx: {name} of the golden image has values that are not finite")
        return answer

    return run


def _sentence(error: Exception) -> str:
    if isinstance(error, TesseraError):
        return str(error)
    if isinstance(error, ImportError):
        return f"it cannot be proved: {first_line(error)}; install Tessera's dependencies again"
    return f"its network does not run here: {first_line(error)}"


def _ends_first() -> None:
    """Where memory runs out, or the server ends, this process is the one to go (Linux)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _limit(granted_bytes: int, granted_s: int) -> None:
    """Bounds address space, processor time and files of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return

    def bound(what: int, soft: int, hard: int) -> None:
        already = resource.getrlimit(what)[1]
        if already != resource.RLIM_INFINITY:
            soft, hard = min(soft, already), min(hard, already)
        resource.setrlimit(what, (soft, hard))

    used = int(sum(os.times()[:2]))
    bound(resource.RLIMIT_CPU, used + granted_s, used + granted_s + 5)  # told at the first, ended at the second
    bound(resource.RLIMIT_CORE, 0, 0)
    with suppress(OSError):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        bound(resource.RLIMIT_AS, held + granted_bytes, held + granted_bytes)
