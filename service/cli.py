"""`tessera serve`: settings, log, server, signals.

Knows nothing of what is served.
"""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from models import hardware
from models.native import bindings as kernels
from service.api.protocol import within
from service.api.server import Server
from service.api.state import Lifecycle
from service.app import create_app
from service.settings import Settings

log = logging.getLogger("tessera")

serve = typer.Typer(add_completion=False, help="Serve bundles over HTTP.")
# A backstop behind our own, politer limit on requests: idle connections count, and the answer is no problem document.
_CONNECTIONS = 8


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
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(hardware.cores()))  # uvloop's own threads; four otherwise
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
        app.state.tessera,
    )
    server.run()
    if app.state.tessera.lifecycle is Lifecycle.FAILED:
        raise typer.Exit(1)
