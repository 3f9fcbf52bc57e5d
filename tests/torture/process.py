"""Servers as processes of their own, on loopback: `tessera serve`, or the same over the engine of a test.

Knows nothing of what is tested. Only processes that were started here are ended here, by their ids.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from service.settings import PREFIX
from tests.torture.client import BROKEN, HOME, Answer, ask

ROOT = Path(__file__).resolve().parents[2]
READY_S, END_S = 60.0, 40.0
_SERVE = "from tessera.cli import main; main()"
_DOUBLE = "from tests.torture.doubles import main; main()"


class NotReadyError(Exception):
    """A server that did not get ready; the message is the last of its log."""


@dataclass
class Server:
    """One that was started. `log` grows while it runs."""

    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def rss_mb(self) -> float:
        """Resident memory of it and all below it."""
        return machine.rss_mb(self.pid)

    def forget_peak(self) -> None:
        """From now on `peak_mb` counts anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """The most that the process itself has held since `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024

    async def ask(self, method: str, path: str, body: bytes = b"", **how: object) -> Answer:
        """One request. Raises one of BROKEN, TimeoutError."""
        return await ask(self.port, method, path, body, **how)  # type: ignore[arg-type]

    async def counters(self) -> dict[str, float]:
        """Every line of /metrics by its full name, labels included."""
        lines = (await self.ask("GET", "/metrics")).body.decode().splitlines()
        split = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in split}

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, limit_s: float = END_S) -> int | None:
        """Its exit code; None where it has not ended in time."""
        try:
            return await asyncio.to_thread(self.process.wait, limit_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """SIGKILL for it and for what it has started, and waits for its end."""
        for pid in machine.children(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._listening.join(5)
        if self.process.stderr:
            self.process.stderr.close()


def start(
    bundles: Sequence[Path],
    state: Path,
    *options: str,
    engine: str | None = None,
    through: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **settings: object,
) -> Server:
    """A server's process, which may not be ready yet.

    engine    the name of one of `doubles.ENGINES`, in place of the network's own
    options   of the command line;  environment  more variables, as they stand
    through   a command that starts it;  settings  fields of Settings
    """
    port = _free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        "PYTHONPATH": str(ROOT),
        f"{PREFIX}STATE": str(state),
        f"{PREFIX}ACCESS_LOG": "false",
        **{PREFIX + name.upper(): str(value) for name, value in settings.items()},
        **({"DOUBLE": engine} if engine else {}),
        **(environment or {}),
    }
    process = subprocess.Popen(
        [*through, sys.executable, "-P", "-c", _DOUBLE if engine else _SERVE, "serve", "--port", str(port)]
        + [argument for bundle in bundles for argument in ("--bundle", str(bundle))]
        + list(options),
        cwd="/",
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Server(process, port)


def _free_port() -> int:
    """A port that nobody listens at, and that no client's end of a connection is given meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOME, port))
            return port


async def ready(server: Server, limit_s: float = READY_S) -> float:
    """Seconds until /readyz says yes. Raises NotReadyError where the process ends before, or the time is up."""
    began = time.monotonic()
    while server.process.poll() is None and time.monotonic() < began + limit_s:
        with suppress(*BROKEN, TimeoutError):
            if (await server.ask("GET", "/readyz", timeout_s=5.0)).status == 200:
                return time.monotonic() - began
        await asyncio.sleep(0.03)
    await asyncio.sleep(0.1)
    raise NotReadyError(f"a server did not get ready: {(server.log or ['no word'])[-1]}")


@asynccontextmanager
async def serving(
    bundles: Sequence[Path], state: Path, *options: str, engine: str | None = None, **settings: object
) -> AsyncIterator[Server]:
    """A ready server for as long as the block runs. Raises NotReadyError."""
    server = start(bundles, state, *options, engine=engine, **settings)
    try:
        await ready(server)
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def plain(bundle: Path, state: Path, photo: bytes, **settings: object) -> AsyncIterator[tuple[Server, bytes]]:
    """A ready server, and what it answers to a photo's /segment?format=png while nobody else asks."""
    async with serving([bundle], state, **settings) as server:
        yield server, (await server.ask("POST", "/segment?format=png", photo)).body
