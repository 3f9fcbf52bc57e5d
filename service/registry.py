"""The bundles this server holds, each with its runtime, its queue and its names.

Knows nothing of HTTP. A bundle is ready when its network has repeated the golden image.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from models.bundle import Bundle, BundleError, Encoder, self_test
from models.errors import TesseraError
from service.batcher import Batcher
from service.clusters import Clusters
from service.engines import open_engine
from service.errors import Busy, NotFound, nearest
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger("tessera")

GPU_BATCH = 16


class NoBundle(TesseraError):
    """A server without a model to serve."""


class Served:
    """One bundle that passed its golden image.

    encoder   runs the network;  batcher   queues images for it;  clusters  names and colors as of now
    """

    def __init__(self, bundle: Bundle, encoder: Encoder, batcher: Batcher, clusters: Clusters) -> None:
        self.bundle, self.encoder, self.batcher, self.clusters = bundle, encoder, batcher, clusters
        self.name = bundle.manifest.name

    @property
    def provider(self) -> str:
        """What runs the network now: cuda, cpu; a test double has its class's name."""
        return str(getattr(self.encoder, "provider", type(self.encoder).__name__))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) the network has run at."""
        return list(getattr(self.encoder, "shapes", ()))


class Registry:
    """Loads the settings' bundles and hands them out by name.

    failed  folder name → why it is not served; a failed default stops the server
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        open_encoder: Callable[[Bundle], Encoder] | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._open = open_encoder or (lambda bundle: open_engine(bundle, settings))
        self.served: list[Served] = []
        self.failed: dict[str, str] = {}
        self.state: Literal["loading", "ready", "failed", "draining"] = "loading"
        self._batching: list[asyncio.Task[None]] = []

    async def load(self) -> None:
        """Load every bundle, the default first. Ends in state `ready`, or `failed` with a line in the log."""
        folders = self._settings.bundles
        try:
            if not folders:
                raise NoBundle("there is no bundle to serve; train one, or name its folder with --bundle")
            for i, folder in enumerate(folders):
                await self._load_one(folder, default=i == 0)
        except TesseraError as error:
            where = f" ({folders[0]})" if folders else ""
            log.error("cannot serve: %s%s", error, where)
            self.state = "failed"
            return
        if self.state == "loading":
            self.state = "ready"

    def admit(self) -> None:
        """Raises Busy when new work should go elsewhere; what is already in is not asked again."""
        if self.state == "draining":
            raise Busy("the server is shutting down; ask another, or again in a moment", reason="draining")

    def get(self, ref: str | None) -> Served:
        """The bundle called `name` or `name@digest12`; the default for None. Raises NotFound, Busy."""
        if ref is None:
            if self.served:
                return self.served[0]
            raise Busy(f"no model is ready yet: the server is {self.state}", reason="loading")
        for served in self.served:
            if ref in (served.name, served.bundle.ref):
                return served
        if self.state == "loading":
            raise Busy(f"{ref[:100]!r} is not ready: the server is loading", reason="loading")
        known = [served.name for served in self.served]
        hint = nearest(ref, known) or f"; there is {', '.join(known)}"
        raise NotFound(f"no model {ref[:100]!r}{hint}")

    async def close(self) -> None:
        """Stop the batchers."""
        for task in self._batching:
            task.cancel()
        await asyncio.gather(*self._batching, return_exceptions=True)

    def show(self) -> None:
        """Bring `tessera_model_info` up to date: a provider can change while it runs."""
        self._metrics.model.clear()
        for served in self.served:
            self._metrics.model.labels(served.name, served.bundle.digest[:12], served.provider).set(1)

    async def _load_one(self, folder: Path, *, default: bool) -> None:
        started = time.perf_counter()
        try:
            bundle, encoder, agreement = await asyncio.to_thread(self._prove, folder)
            if any(bundle.ref == served.bundle.ref for served in self.served):
                raise BundleError(f"{bundle.ref} is given twice")
        except (TesseraError, OSError) as error:
            if default:
                raise error if isinstance(error, TesseraError) else BundleError(str(error)) from None
            self.failed[folder.name] = str(error)
            log.error("%s is not served: %s", folder, error)
            return
        served = self._queue(bundle, encoder)
        self.served.append(served)
        log.info(
            "%s: %d clusters on %s, golden image %.1f%%, ready in %.2f s",
            bundle.ref,
            len(bundle.manifest.clusters),
            served.provider,
            agreement * 100,
            time.perf_counter() - started,
        )

    def _prove(self, folder: Path) -> tuple[Bundle, Encoder, float]:
        bundle = Bundle.load(folder)
        encoder = self._open(bundle)
        return bundle, encoder, self_test(bundle, encoder)

    def _queue(self, bundle: Bundle, encoder: Encoder) -> Served:
        on_gpu = getattr(encoder, "provider", "cpu") == "cuda"
        batcher = Batcher(
            encoder,
            max_batch_size=self._settings.max_batch_size or (GPU_BATCH if on_gpu else 1),
            max_batch_mpx=self._settings.max_batch_mpx,
            on_batch=self._metrics.batched,
        )
        self._batching.append(asyncio.create_task(batcher.serve(), name=f"batcher {bundle.ref}"))
        return Served(bundle, encoder, batcher, Clusters(bundle, self._settings.state / "clusters"))
