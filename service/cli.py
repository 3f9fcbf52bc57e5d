"""`tessera serve`: settings, log, server, signals.

Knows nothing of what is served.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from models import hardware
from models.errors import TesseraError, UsageError
from models.native import bindings as kernels
from service import logs, supervisor
from service.api import binding, signals
from service.api.auth import ApiKeys
from service.api.client_address import TrustedProxies
from service.api.connections import Connections
from service.api.protocol import bounded
from service.api.server import Server
from service.api.state import Lifecycle
from service.app import create_app
from service.engines import check_installed as check_engine
from service.errors import quoted
from service.settings import Settings, check_bundles
from service.workers import MOST, Part, become

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
    except typer.Exit:
        raise
    except TesseraError as error:
        if not logs.in_json():
            raise
        log.critical("%s", error)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        log.critical("cannot serve: %s: %s", type(error).__name__, error, exc_info=error)
        raise typer.Exit(1) from None


@serve.command()
@_told()
def run(
    bundle: Annotated[
        list[Path] | None, typer.Option(help="A bundle's folder; several may be given, the first is the default.")
    ] = None,
    canary: Annotated[
        Path | None, typer.Option(help="A bundle's folder; it answers a share of who names no model, and is compared.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Percent that the canary answers, above 0 to 100; 5 unless it is said.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    supervise: Annotated[
        bool,
        typer.Option("--supervise", help="Start the server again when it fails, five times in ten minutes at most."),
    ] = False,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Beyond 127.0.0.1, serve whoever reaches the server, without keys.")
    ] = False,
    certfile: Annotated[Path | None, typer.Option(help="Certificate in PEM, to speak https.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, where it is not in the same file.")] = None,
    root_path: Annotated[str, typer.Option(help="Path under which a proxy shows the server, such as /tessera.")] = "",
    workers: Annotated[
        int, typer.Option(min=1, max=MOST, help="Processes that answer, each with its own copy of the models.")
    ] = 1,
    worker: Annotated[str, typer.Option(hidden=True)] = "",  # one of them, as the parent says
) -> None:
    """Serve bundles over HTTP: the embedded default, or those given. Other settings are TESSERA_ variables."""
    part = Part.parse(worker) if worker else None
    if supervise and workers == 1:  # in this process, which so becomes a small one
        again = [argument for argument in sys.orig_argv[1:] if argument != "--supervise"]
        os.execv(sys.executable, [sys.executable, "-P", supervisor.__file__, sys.executable, *again])
    signals.hold_hangups()
    logs.set_up(os.environ.get("TESSERA_LOG", ""), {"worker": part.number} if part is not None else None)
    if workers > 1 and part is None:
        become(workers, host, port)
    fleet = None if part is None else part.fleet()
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(hardware.cores()))  # uvloop's own threads; four otherwise
    settings = Settings.from_env(os.environ)
    if bundle:
        settings = settings.model_copy(update={"bundles": tuple(bundle)})
    settings = _with_canary(settings, canary, share)
    if part is not None:
        settings = settings.shared(part.number, part.of)
    check_bundles(settings)
    check_engine(settings)
    root_path = binding.check_root_path(root_path)
    binding.check_certificate(certfile, keyfile)
    here = binding.Binding(binding.is_loopback(host), certfile is not None, root_path)
    app = create_app(settings, binding=here, fleet=fleet)
    state = app.state.tessera
    keys: ApiKeys = state.keys
    if not (here.loopback or keys.needed or open_to_all):
        raise UsageError(
            f"{quoted(host)} is reached from other machines, and everybody there could ask and rename: set TESSERA_KEYS"
            " (or TESSERA_KEYS_FILE), or say --open (make serve OPEN=1) where that is meant"
        )
    if part is None:
        binding.check_free(host, port)
    first = not state.fleet.late  # what is true of all is said once
    if first and not (here.loopback or keys.needed):
        log.warning("open: whoever reaches %s port %d may ask and rename without a key", host or "any address", port)
    signals.on_hangup(keys.reload if settings.keys_file or settings.admin_key_file else None)
    if first and not kernels.compiled():
        log.warning("numpy does the work of the C kernels, several times slower: install again where a C compiler is")
    proxies: TrustedProxies = state.proxies
    connections = Connections(
        settings, state.metrics, counted=lambda address: not proxies.trusts(address), fleet=state.fleet
    )
    state.metrics.watch("connections", "Open connections", lambda: len(connections))
    state.metrics.watch("unread_bytes", "Of answers that clients have not taken yet", lambda: connections.unread)
    connections.most_here = min(connections.most_here, open_files() - _OTHER_FILES)
    server = Server(
        uvicorn.Config(
            app,
            http=bounded(connections, state.metrics),
            ws="none",
            host=host,
            port=port,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            proxy_headers=False,  # TESSERA_TRUSTED_PROXIES says whose are believed
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=2048,
        ),
        state,
        connections,
        lame_duck_s=settings.lame_duck_s
        if settings.lame_duck_s is not None
        else 0.0
        if here.loopback
        else _LAME_DUCK_S,
    )
    server.run(None if part is None else binding.shared(host, port))
    if state.lifecycle is Lifecycle.FAILED or not server.started:
        raise typer.Exit(1)


def _with_canary(settings: Settings, canary: Path | None, share: float | None) -> Settings:
    """The settings with what the command line says of a canary. Raises UsageError."""
    canary = canary or settings.canary
    if share is None:
        return settings.model_copy(update={"canary": canary})
    if canary is None:
        raise UsageError("--share says how much a canary answers; name its folder with --canary")
    if not 0 < share <= 100:  # NaN is none either
        raise UsageError(f"--share {share:g}: percent of the requests that name no model, above 0 to 100")
    return settings.model_copy(update={"canary": canary, "canary_share": share})


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
