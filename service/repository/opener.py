"""Opening: a bundle's engine, opened and proved in a thread of its own, and given up where it hangs.

Knows nothing of what is served, or of what happens to a bundle without an engine.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from models.bundle import Bundle
from service.engines import Engine
from service.errors import NetworkFailed
from service.repository.verification import verify
from service.repository.watched_engine import COLD, WatchedEngine
from service.scheduling.background import Patience, in_thread
from service.scheduling.fair_lock import FairLock

T = TypeVar("T")


class Opener:
    """Of one server, whose engines on the CPU take turns.

    longest_s  of one run of a network (see WatchedEngine); to open one, which may compile it, takes COLD times as long
               at most
    """

    def __init__(self, open_engine: Callable[[Bundle], Engine], cpu: FairLock, longest_s: float) -> None:
        self._open, self._cpu, self._longest_s = open_engine, cpu, longest_s

    async def open(self, bundle: Bundle) -> tuple[WatchedEngine, float]:
        """What `verify` returns, and raises; NetworkFailed where it hangs. What comes of that later is closed."""
        opened: list[WatchedEngine] = []

        def watch(engine: Engine) -> WatchedEngine:
            opened.append(WatchedEngine(engine, self._cpu, self._longest_s))
            return opened[-1]

        done = in_thread(
            lambda: verify(bundle, self._open, watch), f"opening {bundle.ref}", lambda proved: proved[0].close()
        )
        return await self._ended(done, bundle, opened)

    async def run(self, work: Callable[[], T], bundle: Bundle, watched: WatchedEngine) -> T:
        """What `work`, which calls a bundle's engine, returns or raises; NetworkFailed where that hangs."""
        return await self._ended(in_thread(work, f"running {bundle.ref}"), bundle, [watched])

    async def _ended(self, done: asyncio.Future[T], bundle: Bundle, watched: Sequence[WatchedEngine]) -> T:
        period_s = min(1.0, self._longest_s / 10)
        patience, before = Patience(), time.monotonic()
        while not (await asyncio.wait((done,), timeout=period_s))[0]:
            now = time.monotonic()
            passed, before = min(now - before, 2 * period_s), now
            if any(engine.look(passed) for engine in watched):
                what = f"its network did not answer within the {self._longest_s:g} s of TESSERA_ENGINE_TIMEOUT_S"
            elif not watched and patience.look(done, passed) > COLD * self._longest_s:
                what = f"its network could not be opened within {patience.seconds:.0f} s"
            else:
                continue
            for engine in watched:
                engine.abandon()
            done.cancel()
            raise NetworkFailed(f"{bundle.ref}: {what}")
        return done.result()
