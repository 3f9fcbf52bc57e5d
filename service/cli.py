"""`tessera serve`: settings, log, server, signals.

Knows nothing of what is served.
"""

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from models import hardware
from models.errors import TesseraError
from models.native import bindings as kernels
from service import supervisor
from service.api.connections import Connections
from service.api.protocol import bounded
from service.api.server import Server
from service.api.state import Lifecycle
from service.app import create_app
from service.settings import Settings

log = logging.getLogger("tessera")

serve = typer.Typer(add_completion=False, help="Serve bundles over HTTP.")
_LAME_DUCK_S = 2.0  # where a balancer may be in front
_OTHER_FILES = 256  # that may be open beside connections
_MOST_FILES = 2**20


@contextmanager
def _told() -> Iterator[None]:
    """Around a server's life: what nobody foresaw ends it with a sentence as well, and its traceback."""
    try:
        yield
    except (TesseraError, typer.Exit):
        raise
    except Exception as error:
        log.critical("cannot serve: %s: %s", type(error).__name__, error, exc_info=error)
        raise typer.Exit(1) from None


@serve.command()
@_told()
def run(
    bundle: Annotated[
        list[Path] | None, typer.Option(help="A bundle's folder; several may be given, the first is the default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    supervise: Annotated[
        bool,
        typer.Option("--supervise", help="Start the server again when it fails, five times in ten minutes at most."),
    ] = False,
) -> None:
    """Serve bundles over HTTP: the embedded default, or those given. Other settings are TESSERA_ variables."""
    if supervise:  # in this process, which so becomes a small one
        again = [argument for argument in sys.orig_argv[1:] if argument != "--supervise"]
        os.execv(sys.executable, [sys.executable, "-P", supervisor.__file__, sys.executable, *again])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(hardware.cores()))  # uvloop's own threads; four otherwise
    settings = Settings.from_env(os.environ)
    if bundle:
        settings = settings.model_copy(update={"bundles": tuple(bundle)})
    app = create_app(settings)
    if not kernels.compiled():
        log.warning("numpy does the work of the C kernels, several times slower: install again where a C compiler is")
    state = app.state.tessera
    connections = Connections(settings, state.metrics)
    state.metrics.watch("connections", "Open connections", lambda: len(connections))
    state.metrics.watch("unread_bytes", "Of answers that clients have not taken yet", lambda: connections.unread)
    connections.max_connections = min(connections.max_connections, open_files() - _OTHER_FILES)
    server = Server(
        uvicorn.Config(
            app,
            http=bounded(connections, state.metrics),
            ws="none",
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=2048,
        ),
        state,
        connections,
        lame_duck_s=settings.lame_duck_s
        if settings.lame_duck_s is not None
        else 0.0
        if is_loopback(host)
        else _LAME_DUCK_S,
    )
    server.run()
    if state.lifecycle is Lifecycle.FAILED or not server.started:
        raise typer.Exit(1)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens at `host`."""
    try:
        found = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def open_files() -> int:
    """How many files this process may have open, from now on as many as the system lets it ask for."""
    try:
        import resource
    except ImportError:
        return 2**16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
