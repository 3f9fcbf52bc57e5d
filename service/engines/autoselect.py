"""Automatic choice of an engine: the fastest whose labels are onnxruntime's, measured once and remembered.

`auto` takes the GPU where it works. Otherwise each float32 engine that is installed runs the golden image in turn, two
seconds in all, and the fastest whose label map equals the reference's on 99.99 % of its pixels is taken.
Engines that compute less exactly are taken only by name, and then say how far their labels agree.

Knows nothing of how an engine runs a network.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from models import hardware
from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import segment
from models.preprocess import fit
from models.types import Array
from service.engines import onnxruntime_cuda
from service.engines.base import Engine, EngineError, Kind
from service.remembered import Remembered
from service.settings import Settings

log = logging.getLogger("tessera")

AGREEMENT = 0.9999
BUDGET_S = 2.0


def fastest(bundle: Bundle, settings: Settings, kinds: Sequence[Kind]) -> Engine:
    """The engine that `auto` takes. Raises EngineError where none is installed, BundleError for a bad network."""
    installed = reference_first(kinds)
    if gpu := _gpu(bundle, settings, installed):
        return gpu
    if len(installed) == 1:
        return installed[0].open(bundle, settings)
    memory = Remembered(
        settings.state / "engines.json", "the choice of an engine is not remembered, it will be measured again"
    )
    key = _key(bundle, settings, installed)
    known = memory.get(key)
    for kind in installed:
        if kind.name == known.get("engine"):
            engine = kind.open(bundle, settings)
            engine.note = known.get("note")
            return engine
    engine = measured(bundle, settings, installed)
    memory.put(key, {"engine": engine.name, "note": engine.note or ""})
    return engine


def compared(bundle: Bundle, settings: Settings, kind: Kind, kinds: Sequence[Kind]) -> Engine:
    """The engine of a kind that computes less exactly; its note says on how much of the golden image it agrees."""
    reference = reference_first(kinds)[0]
    engine = _noted(bundle, settings, reference, kind.open(bundle, settings))
    engine.exact = False
    return engine


def measured(
    bundle: Bundle,
    settings: Settings,
    kinds: Sequence[Kind],
    clock: Callable[[], float] = time.perf_counter,
) -> Engine:
    """The fastest engine of several kinds, open; the others are closed. The first is the reference.

    Raises BundleError where the reference cannot open the network; another that cannot is left out, with a warning.
    """
    engines = [kinds[0].open(bundle, settings)]
    for kind in kinds[1:]:
        try:
            engines.append(kind.open(bundle, settings))
        except TesseraError as error:
            log.warning("%s: %s is left out: %s", bundle.ref, kind.name, error)
    wanted = _labels(bundle, engines[0])
    agreement = {engine.name: _agreement(_labels(bundle, engine), wanted) for engine in engines}
    equal = [engine for engine in engines if agreement[engine.name] >= AGREEMENT]
    took = _times(equal, fit(bundle.golden.image, bundle.manifest.input).pixels[None], clock)
    best = min(equal, key=lambda engine: took[engine.name])
    best.note = _why(best.name, [engine.name for engine in engines], took, agreement)
    log.info("%s: %s", bundle.ref, best.note)
    for engine in engines:
        if engine is not best:
            engine.close()
    return best


def _times(engines: Sequence[Engine], pixels: Array, clock: Callable[[], float]) -> dict[str, float]:
    """Name → the shortest of its runs, taken in turns for BUDGET_S in all, each at least once.

    The shortest, because what disturbs a run only ever makes it longer.
    """
    took = dict.fromkeys((engine.name for engine in engines), np.inf)
    began = clock()
    while True:
        for engine in engines:
            start = clock()
            engine(pixels)
            took[engine.name] = min(took[engine.name], clock() - start)
        if clock() - began + sum(took.values()) > BUDGET_S:
            return took


def _why(best: str, names: Sequence[str], took: dict[str, float], agreement: dict[str, float]) -> str:
    """The sentence for people."""
    others = [
        f"{name} {took[name] * 1000:.1f} ms" if name in took else f"{name} disagrees on {1 - agreement[name]:.2%}"
        for name in names
        if name != best
    ]
    same = f"; labels agree with {names[0]}'s on {agreement[best]:.2%} of the golden image" if best != names[0] else ""
    return f"{best} is the fastest here: {took[best] * 1000:.1f} ms an image, {', '.join(others)}{same}"


def _gpu(bundle: Bundle, settings: Settings, exact: Sequence[Kind]) -> Engine | None:
    if exact[0].name != "onnxruntime" or not onnxruntime_cuda.offered():
        return None
    found = onnxruntime_cuda.open_gpu(bundle, settings)
    if isinstance(found, onnxruntime_cuda.Cuda):
        return _noted(bundle, settings, exact[0], found)
    log.warning("%s: %s. The CPU serves", bundle.ref, found)
    return None


def _noted(bundle: Bundle, settings: Settings, reference: Kind, engine: Engine) -> Engine:
    if engine.note is None:
        against = reference.open(bundle, settings)
        agreement = _agreement(_labels(bundle, engine), _labels(bundle, against))
        against.close()
        engine.note = f"{engine.name}: labels agree with {reference.name}'s on {agreement:.2%} of the golden image"
        log.info("%s: %s", bundle.ref, engine.note)
    return engine


def _labels(bundle: Bundle, engine: Engine) -> Array:
    return segment(bundle, engine, bundle.golden.image)


def _agreement(labels: Array, wanted: Array) -> float:
    return float((labels == wanted).mean())


def reference_first(kinds: Sequence[Kind]) -> list[Kind]:
    """The installed ones that compute in float32, the reference first. Raises EngineError where there is none."""
    exact = [kind for kind in kinds if kind.exact and kind.versions]
    if not exact:
        raise EngineError("no engine is installed: install the `cpu` extra, or `gpu` where there is one")
    return sorted(exact, key=lambda kind: kind.name != "onnxruntime")


def _key(bundle: Bundle, settings: Settings, kinds: Sequence[Kind]) -> str:
    versions = [str(kind.versions) for kind in kinds]
    cores = f"{settings.threads or hardware.cores()} threads on {hardware.cores()} cores"
    return "; ".join([bundle.digest, hardware.processor(), cores, *versions])
