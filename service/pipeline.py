"""From an uploaded file's bytes to an answer's bytes: decode → batch → assign → crf → render.

Knows nothing of HTTP: it is given bytes, options and a loaded model, and returns a `Result` and bytes.

The steps before and after the network each run as one job in a thread pool, so the event loop only waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from models import assign, image
from models.assign import Array
from models.bundle import Manifest
from models.errors import TesseraError
from models.refined import refined
from service.admission import Admission
from service.batcher import Batched
from service.clusters import Appearance
from service.errors import BadOption
from service.metrics import Metrics
from service.render import Renderer
from service.schemas import Options

if TYPE_CHECKING:
    from service.registry import Served

T = TypeVar("T")
STAGES = ("decode", "queue", "encoder", "assign", "crf", "encode")
_COUNTED_PX = 2**20  # pixels counted at once: what numpy widens to 64 bits stays small


class Area(NamedTuple):
    """One cluster in one image; bbox is x, y, width, height; confidence the mean margin."""

    id: int
    pixels: int
    bbox: tuple[int, int, int, int]
    confidence: float


@dataclass(frozen=True)
class Result:
    """One image, segmented.

    image    RGB uint8 [H, W, 3];  labels  uint8 [H, W] as answers show them (level and merges applied)
    table    uint8 [K]: which id of `labels` stands for each of the network's
    margin   float32 [H, W] where asked for, [h, w] for other JSON answers, None elsewhere
    timings  milliseconds by stage, `encode` not yet
    """

    model: str
    digest: str
    k: int
    options: Options
    image: Array
    labels: Array
    table: Array
    areas: list[Area]
    appearance: Appearance
    margin: Array | None
    depth_rule: str | None
    refined: bool
    warnings: list[str]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass
class House:
    """What all requests share: threads, room, counters, limits."""

    admission: Admission
    metrics: Metrics
    limits: image.Limits
    workers: ThreadPoolExecutor
    # The CRF takes a second where the rest takes milliseconds: it must not stand in front of decoding.
    crf_workers: ThreadPoolExecutor

    @classmethod
    def of(cls, admission: Admission, metrics: Metrics, limits: image.Limits, workers: int) -> House:
        """With `workers` threads for decoding and encoding, 0 = one per core; half as many for the CRF."""
        count = workers or (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) or 1
        return cls(
            admission,
            metrics,
            limits,
            ThreadPoolExecutor(count, thread_name_prefix="worker"),
            ThreadPoolExecutor(max(1, count // 2), thread_name_prefix="crf"),
        )

    def close(self) -> None:
        """Let the threads go; what has not begun never does."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.crf_workers.shutdown(wait=False, cancel_futures=True)


async def segment(
    data: bytes, options: Options, renderer: Renderer, served: Served, house: House, timings: dict[str, float]
) -> bytes:
    """One image's answer. Cancelled, it drops what has not begun.

    timings  is filled with milliseconds by stage

    Raises ImageError and its kin for the bytes, BadOption for options this model cannot follow, Busy.
    """
    table, look = served.clusters.table(options.k), served.clusters.appearance
    for cluster in options.drawn() or ():
        if cluster >= served.clusters.count:
            raise BadOption(f"only: no cluster {cluster}; {served.bundle.ref} has 0 to {served.clusters.count - 1}")
    manifest = served.bundle.manifest
    with house.admission.place() as place:
        timings.update(dict.fromkeys(STAGES, 0.0))
        decoded, fitted = await _in(house.workers, lambda: _decode(data, options, manifest, house.limits, timings))
        place.weigh(decoded.image.shape[0] * decoded.image.shape[1] / 1e6)
        wants_margin = renderer.name == "json"
        cosine = manifest.code.assignment == "cosine"
        batched = await served.batcher.submit(fitted.pixels, code=cosine and (wants_margin or options.crf))
        timings["queue"], timings["encoder"] = batched.queue_s * 1000, batched.encoder_s * 1000

        def finish() -> tuple[bytes, Result]:
            labels = _labels(batched, fitted, manifest, options, timings)
            with _timed(timings, "assign"):
                margin = _margin(batched, fitted, manifest, options.confidence) if wants_margin else None
                shown = table[labels]
                areas = measure(shown, len(table), margin)
            result = Result(
                model=manifest.name,
                digest=served.bundle.digest[:12],
                k=options.k or served.clusters.count,
                options=options,
                image=decoded.image,
                labels=shown,
                table=table,
                areas=areas,
                appearance=look,
                margin=margin,
                depth_rule=decoded.depth_rule,
                refined=options.crf,
                warnings=_warnings(fitted.source, manifest),
                timings=timings,
            )
            with _timed(timings, "encode"):
                body = renderer.render(replace(result, timings={k: v for k, v in timings.items() if k != "encode"}))
            return body, result

        body, result = await _in(house.crf_workers if options.crf else house.workers, finish)
    house.metrics.segmented(manifest.name, result)
    return body


def measure(labels: Array, k: int, margin: Array | None = None) -> list[Area]:
    """The clusters of a label map uint8 [H, W], largest first, with their boxes and mean margins.

    margin  float32 of any size that shows the same image; None counts as 0
    """
    height, width = labels.shape
    pixels, sums = np.zeros(k, np.int64), np.zeros(k)
    by_column = np.zeros((k, width), bool)
    top, bottom = np.full(k, height), np.zeros(k, np.intp)
    columns = None if margin is None else np.arange(width) * margin.shape[1] // width
    step = max(1, _COUNTED_PX // width)
    for start in range(0, height, step):
        strip = labels[start : start + step]
        rows = np.arange(start, start + len(strip))
        count = np.bincount(strip.ravel(), minlength=k)
        pixels += count
        by_row = np.zeros((len(strip), k), bool)
        by_row[np.arange(len(strip))[:, None], strip] = True
        by_column[strip, np.arange(width)] = True
        for cluster in np.flatnonzero(count):
            inside = rows[by_row[:, cluster]]
            top[cluster], bottom[cluster] = min(top[cluster], inside[0]), inside[-1]
        if margin is not None:
            weights = margin[rows * margin.shape[0] // height][:, columns]
            sums += np.bincount(strip.ravel(), weights=weights.ravel(), minlength=k)
    areas = []
    for cluster in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)]:
        across = np.flatnonzero(by_column[cluster])
        left, y = int(across[0]), int(top[cluster])
        box = (left, y, int(across[-1]) - left + 1, int(bottom[cluster]) - y + 1)
        areas.append(Area(int(cluster), int(pixels[cluster]), box, float(sums[cluster] / pixels[cluster])))
    return areas


def _decode(
    data: bytes, options: Options, manifest: Manifest, limits: image.Limits, timings: dict[str, float]
) -> tuple[image.Decoded, image.Fit]:
    with _timed(timings, "decode"):
        decoded = image.decode(data, limits=limits, depth=options.depth, page=options.page)
        return decoded, image.fit(decoded.image, manifest.input)


def _labels(
    batched: Batched, fitted: image.Fit, manifest: Manifest, options: Options, timings: dict[str, float]
) -> Array:
    """The network's own ids uint8 [H, W] at the source's size."""
    if not options.crf:
        with _timed(timings, "assign"):
            return assign.labels(batched.scores, fitted.source, fitted.box)
    with _timed(timings, "crf"):
        return _refined(batched, fitted, manifest, options)


def _refined(batched: Batched, fitted: image.Fit, manifest: Manifest, options: Options) -> Array:
    """Labels after the dense CRF, with the request's options."""
    try:
        return refined(
            batched.scores,
            batched.code,
            fitted,
            temperature=manifest.code.temperature,
            assignment=manifest.code.assignment,
            iterations=options.crf_iterations,
            gaussian_compat=options.crf_gaussian_compat,
            bilateral_sxy=options.crf_bilateral_sxy,
            bilateral_srgb=options.crf_bilateral_srgb,
            bilateral_compat=options.crf_bilateral_compat,
        )
    except TesseraError as error:  # deviations that do not go with this image's size
        raise BadOption(f"crf: {error}") from None


def _margin(batched: Batched, fitted: image.Fit, manifest: Manifest, full: bool) -> Array:
    """How clearly each place was decided: at the source's size when asked for, else on the patch grid."""
    grid = batched.scores.shape[1:]
    small = (max(1, round(grid[0] * fitted.box[2])), max(1, round(grid[1] * fitted.box[3])))
    size = fitted.source if full else small
    return assign.margin(batched.scores, batched.code, size, assignment=manifest.code.assignment, box=fitted.box)


def _warnings(source: tuple[int, int], manifest: Manifest) -> list[str]:
    cell = manifest.code.stride
    if min(source) >= cell:
        return []
    return [f"the image is {source[1]}×{source[0]} pixels, smaller than one cell of the model's grid ({cell})"]


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] += (time.perf_counter() - started) * 1000
