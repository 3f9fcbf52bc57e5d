"""Recovery: what hangs or dies of the models that serve is noticed, said, and replaced by a fresh engine.

A model's engine is lost when a run of it hangs, when the thread that runs it dies, or when it failed several times in a
row and then even with the golden image, which once passed. Who was in that run gets an error, who waits is told to come
back, and a fresh engine is opened and proved as at a load, a few times with growing pauses. Where none works the model
is let go; where it is the default the server ends, as a start without it does: the process anew is what is left to try.

Knows nothing of HTTP, of how engines are opened, or of how bundles are loaded.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from models.bundle import Bundle
from models.preprocess import fit
from service.engines.base import first_line
from service.errors import Busy, DeadlinePassed, NetworkFailed
from service.metrics import Metrics
from service.repository.opener import Opener
from service.repository.served_model import NetworkBatcher, Served
from service.repository.watched_engine import WatchedEngine
from service.scheduling.background import in_thread, spawn

log = logging.getLogger("tessera")

PAUSES_S = (0.0, 1.0, 5.0, 20.0, 60.0)  # before each try of a fresh engine
SUSPECT = 3  # batches without an answer, one after the other, before the golden image is asked again
_COME_BACK_S = 5


class Models(Protocol):
    """Those of the registry.

    served  the default first;  leaving  replaced or unloaded, still finishing
    failed  folder name → why it is not served
    canary  among the served: it gets no fresh engine, as another model answers in its place
    """

    @property
    def canary(self) -> Served | None: ...

    served: list[Served]
    leaving: list[Served]
    failed: dict[str, str]

    def put_away(self, served: Served) -> None:
        """Close one that is not handed out any more."""
        ...


class Recovery:
    """Looks after the engines of the models that serve; on the event loop.

    batcher  a queue before a fresh engine
    lost     why the default model cannot be served any more, once no fresh engine worked
    """

    def __init__(
        self,
        models: Models,
        opener: Opener,
        batcher: Callable[[Bundle, WatchedEngine], NetworkBatcher],
        metrics: Metrics,
    ) -> None:
        self._models, self._opener, self._batcher, self._metrics = models, opener, batcher, metrics
        self._trying: set[asyncio.Task[None]] = set()
        self._proving: set[NetworkBatcher] = set()
        self.lost: str | None = None

    def tend(self, elapsed_s: float) -> None:
        """Look whether each engine still works.

        elapsed_s  since the last call
        """
        for served in [*self._models.served, *self._models.leaving]:
            if served.trouble is not None:
                continue
            ref = served.bundle.ref
            dead = served.batcher.tend(elapsed_s, lambda what, ref=ref: NetworkFailed(f"{ref}: {what}"))  # type: ignore[misc]
            if served.watched.lost or served.watched.look(elapsed_s):
                self._lose(served, "hung", "did not come back")
            elif dead or served.batcher.died is not None:
                self._lose(served, "died", f"died ({served.batcher.died or 'its thread is gone'})")
            elif served.batcher.failures >= SUSPECT and served.batcher not in self._proving:
                self._spawn(self._prove(served, served.batcher), f"asking {served.bundle.ref} for its golden image")

    def trouble(self) -> str | None:
        """Why a model cannot answer now; None where all can."""
        served = (served for served in self._models.served if served is not self._models.canary)
        return self.lost or next((one.trouble for one in served if one.trouble), None)

    def close(self) -> None:
        """Try no more."""
        for task in self._trying:
            task.cancel()

    def _lose(self, served: Served, reason: str, what: str) -> None:
        ref = served.bundle.ref
        self._metrics.network_failures.labels(served.name, reason).inc()
        again = served is not self._models.canary
        served.trouble = f"{ref}: its network {what}" + ("; a fresh engine is being tried" if again else "")
        log.error("%s", served.trouble)
        failed = f"{ref}: its network {what} while it had this image; a fresh engine is being tried: ask again later"
        busy = f"{ref} has lost its engine, a fresh one is being tried; come back in {_COME_BACK_S} s"
        served.batcher.abandon(
            lambda: NetworkFailed(failed), lambda: Busy(busy, reason="engine", retry_after_s=_COME_BACK_S)
        )
        if not served.watched.abandon():
            in_thread(served.watched.close, f"closing {ref}")
        if again and served in self._models.served:
            self._spawn(self._reopen(served), f"a fresh engine for {ref}")

    async def _prove(self, served: Served, batcher: NetworkBatcher) -> None:
        """Is it the images, or the network? Its golden image tells."""
        self._proving.add(batcher)
        try:
            await batcher.predict(fit(served.bundle.golden.image, served.bundle.manifest.input).pixels)
        except (Busy, DeadlinePassed):  # there is no room to tell
            return
        except Exception as error:
            if served.trouble is None:
                self._lose(served, "failed", f"fails with every image, its golden one too ({first_line(error)})")
        finally:
            self._proving.discard(batcher)

    async def _reopen(self, served: Served) -> None:
        ref = served.bundle.ref
        for number, pause_s in enumerate(PAUSES_S, 1):
            await asyncio.sleep(pause_s)
            if served not in self._models.served:  # it was unloaded or replaced
                return
            try:
                watched, _ = await self._opener.open(served.bundle)
            except Exception as error:
                log.error("%s: fresh engine, try %d of %d: %s", ref, number, len(PAUSES_S), error)
                continue
            if served not in self._models.served:
                in_thread(watched.close, f"closing {ref}")
                return
            served.watched, served.batcher = watched, self._batcher(served.bundle, watched)
            served.trouble = None
            log.warning("%s: serves again, by a fresh %s on %s", ref, watched.engine.name, watched.engine.provider)
            return
        self._give_up(served)

    def _give_up(self, served: Served) -> None:
        ref = served.bundle.ref
        why = f"{ref}: its network was lost, and none of {len(PAUSES_S)} fresh engines works"
        log.critical("%s", why)
        if served is self._models.served[0]:
            self.lost = f"{why}; the server has to be started again"
            return
        self._models.failed[served.bundle.path.name] = why
        self._models.served.remove(served)
        self._models.put_away(served)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = spawn(coroutine, name)
        self._trying.add(task)
        task.add_done_callback(self._trying.discard)
