"""Both networks see an image that the canary answered: the default's pass comes behind everybody's, and nobody waits.

What is compared are the networks' own label maps at the picture's size, before merges, levels and edges. An image
counts once, however often it is asked for. Knows nothing of HTTP, of who asked.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from models import region_stats
from models.io.pixels import Pixels
from models.manifest import Manifest
from models.types import Array
from service.formats.result import NO_DATA
from service.inference.options import Options
from service.inference.pipeline import labels_of, margin_of
from service.inference.results import NetworkOutput
from service.inference.runtime import Runtime
from service.inference.task import ImageTask
from service.repository.agreement import agreement, contingency
from service.repository.canary import Canary, Compared, Trial
from service.repository.registry import Registry
from service.repository.served_model import Served
from service.scheduling.background import spawn
from service.scheduling.fair_queue import BACKGROUND

log = logging.getLogger("tessera")

_MOST = 8  # images that wait
_MOST_BYTES = 64 * 2**20  # of their files and maps
_QUIET_S = 10.0  # for which one waits until nobody asks the default
_LOOK_S = 0.02
_SHOWN_S = 5.0  # from one look at the agreement to the next
_BYTES_PER_PX = 24  # two label maps, which of their pixels count, and strips of both put together
_REMEMBERED = 4096  # images that were compared


@dataclass(eq=False)
class _Image:
    """One that the canary answered: what it saw, and what it said of it."""

    key: Hashable
    data: bytes | Pixels
    options: Options
    canary: Served
    output: NetworkOutput
    pass_ms: float
    trial: Trial

    @property
    def nbytes(self) -> int:
        return len(self.data) + self.output.nbytes


class Comparisons:
    """Of one server; on the event loop. Images wait in a line that is short: who comes to a full one is skipped.

    waiting  images in it
    """

    def __init__(self, registry: Registry, runtime: Runtime, canary: Canary, timeout_s: float) -> None:
        self._registry, self._runtime, self._canary, self._timeout_s = registry, runtime, canary, timeout_s
        self._line: deque[_Image] = deque()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._shown = -_SHOWN_S

    @property
    def waiting(self) -> int:
        return len(self._line) + (self._running is not None)

    def offer(self, task: ImageTask[Options], output: NetworkOutput) -> None:
        """An image that the canary has answered."""
        trial = self._canary.beside()
        if trial is None or trial.canary != task.served.bundle.ref:
            return
        o = task.options
        key = (task.digest, o.page, o.depth, o.bands, o.pyramid, o.tile, bool(o.refine), trial.default, trial.canary)
        if key in self._seen:
            self._seen.move_to_end(key)
            return
        image = _Image(key, task.data, o, task.served, output, task.timings.so_far()["encoder"], trial)
        if len(self._line) >= _MOST or sum(one.nbytes for one in self._line) + image.nbytes > _MOST_BYTES:
            self._canary.compared(None, trial)
            return
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        self._line.append(image)
        if self._running is None:
            self._running = spawn(self._run(), "comparing the canary with the default")

    def close(self) -> None:
        """Compare nothing more."""
        self._line.clear()
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            while self._line:
                image = self._line.popleft()
                compared: Compared | None = None
                try:
                    if self._canary.beside() is not image.trial:  # it was counted of others
                        continue
                    compared = await self._compare(image)
                except Exception as error:  # the house is full, the default fails: what users see is told elsewhere
                    log.info("an image of the canary was not compared: %s: %s", type(error).__name__, error)
                self._canary.compared(compared, image.trial)
                if compared is None:  # it may be asked again
                    self._seen.pop(image.key, None)
                await self._show(image.trial)
        finally:
            self._running = None

    async def _compare(self, image: _Image) -> Compared | None:
        """None where the default had no time for it."""
        default = self._registry.served[0]
        until = time.monotonic() + _QUIET_S
        while default.batcher.waiting or default.batcher.running:
            if time.monotonic() > until:
                return None
            await asyncio.sleep(_LOOK_S)
        with self._registry.hold(default):
            options = image.options
            task = ImageTask(
                image.data, options, default, self._runtime, BACKGROUND, time.monotonic() + self._timeout_s, True
            )
            with task.admitted():
                output = await task.network_output(
                    code=True, tile="never" if options.refine else options.tile, margin="grid"
                )
                manifests = (default.bundle.manifest, image.canary.bundle.manifest)
                count = partial(_counted, manifests, (output, image.output))
                table, margins = await task.finish(output, count, _BYTES_PER_PX)
        return Compared(table, margins, (task.timings.so_far()["encoder"], image.pass_ms))

    async def _show(self, trial: Trial) -> None:
        """The agreement so far, in the metrics: now and then, as it takes a while for many clusters."""
        if (now := time.monotonic()) - self._shown < _SHOWN_S or self._canary.beside() is not trial:
            return
        self._shown = now
        found = await asyncio.to_thread(agreement, trial.table.copy())
        if self._canary.beside() is trial:
            self._canary.show(None if found is None else found.one_to_one)


def _counted(
    manifests: tuple[Manifest, Manifest], outputs: tuple[NetworkOutput, NetworkOutput]
) -> tuple[Array, tuple[float | None, float | None]]:
    """How often the default's ids met the canary's, and the mean margins of both. Raises ValueError for maps of two
    sizes."""
    maps = [labels_of(manifest, output) for manifest, output in zip(manifests, outputs, strict=True)]
    for labels, output in zip(maps, outputs, strict=True):
        if output.facts.valid is not None:
            output.facts.valid.erase(labels, NO_DATA)
    counts = [len(manifest.clusters) for manifest in manifests]
    margins = [
        _sure(labels, _margin(manifest, output), count)
        for labels, manifest, output, count in zip(maps, manifests, outputs, counts, strict=True)
    ]
    return contingency(maps[0], maps[1], counts[0], counts[1], ignored=NO_DATA), (margins[0], margins[1])


def _margin(manifest: Manifest, output: NetworkOutput) -> Array | None:
    """None where the network was not asked for what it takes."""
    if output.labels is None and output.code is None and manifest.code.assignment == "cosine":
        return None
    return margin_of(manifest, output, full=False)


def _sure(labels: Array, margin: Array | None, count: int) -> float | None:
    areas = [] if margin is None else region_stats.compute(labels, count, margin, ignored=NO_DATA)
    held = sum(area.pixels for area in areas)
    return sum(area.confidence * area.pixels for area in areas) / held if held else None
