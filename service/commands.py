"""`tessera serve`: settings, log, server, signals.

Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from models import host as kernels
from service.app import create_app
from service.metrics import tessera_version
from service.protocol import within
from service.rooms import Rooms
from service.settings import Settings

log = logging.getLogger("tessera")

serve = typer.Typer(add_completion=False, help="Serve bundles over HTTP.")
# A backstop behind our own, politer limit on requests: idle connections count, and the answer is no problem document.
_CONNECTIONS = 8


class Server(uvicorn.Server):
    """uvicorn, that says `not ready` and finishes its work before it closes its door."""

    def __init__(self, config: uvicorn.Config, rooms: Rooms) -> None:
        super().__init__(config)
        self._rooms = rooms
        self._close_at: float | None = None
        self._compiling: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says where it listens once it does."""
        if self._rooms.settings.crf == "dense":
            self._rooms.house.compiling.look()
        await super().startup(sockets)
        if self.started and self._rooms.registry.state != "failed":
            where = f"http://{self.config.host}:{self.config.port}/"
            log.info("tessera %s on %s — POST /segment, or open it in a browser", tessera_version(), where)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains; a second signal, or Ctrl-C, closes at once (running requests still finish)."""
        if sig != signal.SIGTERM or self._close_at is not None:
            super().handle_exit(sig, frame)
            return
        log.info("draining: new work is refused, what is in the house is finished")
        self._rooms.registry.state = "draining"
        self._close_at = time.monotonic() + self._rooms.settings.drain_s

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to close, or to compile the CRF, which waits until the models are there?"""
        if self._rooms.registry.state == "failed":
            return True
        if self._rooms.registry.state == "ready" and self._compiling is None:
            labels = [served.clusters.count for served in self._rooms.registry.served]
            self._compiling = asyncio.create_task(self._rooms.house.compiling.run(labels))
        if self._close_at is not None and (not self._rooms.traffic.running or time.monotonic() > self._close_at):
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What waits for the CRF's code is answered without."""
        if self._compiling is not None:
            self._compiling.cancel()
        await super().shutdown(sockets)


@serve.command()
def run(
    bundle: Annotated[
        list[Path] | None, typer.Option(help="A bundle's folder; several may be given, the first is the default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Serve bundles over HTTP: the embedded default, or those given. Other settings are TESSERA_ variables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = Settings.from_env(os.environ)
    if bundle:
        settings = settings.model_copy(update={"bundles": tuple(bundle)})
    app = create_app(settings)
    if not kernels.compiled():
        log.warning("numpy does the work of the C kernels, several times slower: install again where a C compiler is")
    server = Server(
        uvicorn.Config(
            app,
            http=within(settings.header_timeout_s),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.drain_s,
            limit_concurrency=_CONNECTIONS * settings.max_requests,
            backlog=2048,
        ),
        app.state.rooms,
    )
    server.run()
    if app.state.rooms.registry.state == "failed":
        raise typer.Exit(1)
