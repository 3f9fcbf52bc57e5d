"""uvicorn, with a drain: it says `not ready` and finishes its work before it closes its door.

Knows nothing of what is served.
"""

import logging
import signal
import socket
import time
from types import FrameType

import uvicorn

from service.api.state import AppState, Lifecycle
from service.metrics import tessera_version

log = logging.getLogger("tessera")


class Server(uvicorn.Server):
    """uvicorn, that says `not ready` and finishes its work before it closes its door."""

    def __init__(self, config: uvicorn.Config, state: AppState) -> None:
        super().__init__(config)
        self._state = state
        self._close_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says where it listens once it does."""
        if self._state.settings.crf == "dense":
            self._state.runtime.warmup.look()
        await super().startup(sockets)
        if self.started and self._state.lifecycle is not Lifecycle.FAILED:
            where = f"http://{self.config.host}:{self.config.port}/"
            log.info("tessera %s on %s — POST /segment, or open it in a browser", tessera_version(), where)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains; a second signal, or Ctrl-C, closes at once (running requests still finish)."""
        if sig != signal.SIGTERM or self._close_at is not None:
            super().handle_exit(sig, frame)
            return
        log.info("draining: new work is refused, what is in the house is finished")
        self._state.lifecycle = Lifecycle.DRAINING
        self._close_at = time.monotonic() + self._state.settings.drain_s

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to close?"""
        if self._state.lifecycle is Lifecycle.FAILED:
            return True
        if self._close_at is not None and (not self._state.in_flight.running or time.monotonic() > self._close_at):
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What waits for the CRF's code is answered without."""
        if self._state.starting is not None:
            self._state.starting.cancel()
        await super().shutdown(sockets)
