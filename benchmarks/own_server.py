"""A server of ours as a process of its own, on loopback: started, asked for its counters, ended.

Knows nothing of what is measured on it.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import TesseraError

_SERVING_ENV = Path(__file__).resolve().parents[1] / ".venv-serve" / "bin" / "tessera"
_READY_S = 120.0
_END_S = 40.0  # longer than it drains


class ServerError(TesseraError):
    """A server of ours that did not start."""


@dataclass(frozen=True)
class OwnServer:
    """A running one.

    start_s  from its start until /readyz said yes
    """

    pid: int
    port: int
    start_s: float

    def counters(self) -> dict[str, float]:
        """Every line of /metrics by its full name, labels included."""
        return counters(self.port)


def command(tessera: Path | None = None) -> Path:
    """The `tessera` that serves: the one named, that of `make serve`, or that of this interpreter's environment."""
    return tessera or (_SERVING_ENV if _SERVING_ENV.is_file() else Path(sys.executable).with_name("tessera"))


def counters(port: int) -> dict[str, float]:
    """/metrics of the server on a loopback port. Raises OSError when nobody answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    split = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in split}


def void(found: Mapping[str, float], answered: int = 0) -> str | None:
    """Why a run counts for nothing: its network did not run once for every image that was answered.

    found     the server's counters with nothing under way;  answered  images that the client saw answered, at least
    returns   a sentence, or None for a sound run
    """
    images, passes = found.get("tessera_images_total", 0.0), found.get("tessera_batch_images_sum", 0.0)
    if images < answered:
        return f"the client has {answered} answers, the server counts {images:.0f}: its counters were read too early"
    if images != passes:
        return f"{passes:.0f} encoder passes for {images:.0f} images: something was answered without its own pass"
    return None


@contextmanager
def serving(
    bundle: Path,
    log: Path,
    *,
    port: int,
    env: Mapping[str, str] | None = None,
    tessera: Path | None = None,
    more: Sequence[str] = (),
    workers: int = 1,
) -> Iterator[OwnServer]:
    """A server of one bundle for as long as the block runs.

    env      TESSERA_ settings beside the environment's;  log  the file that gets its log
    more     options of the command;  workers  processes that it starts

    Raises ServerError with its last line when it ends before it is ready.
    """
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [command(tessera), "serve", "--bundle", bundle, "--port", str(port), *more],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    try:
        while not _ready(port, workers):
            if process.poll() is not None or time.monotonic() - began > _READY_S:
                last = (log.read_text().splitlines() or ["no word"])[-1]
                raise ServerError(f"our server did not get ready on port {port}: {last}")
            time.sleep(0.02)
        yield OwnServer(process.pid, port, time.monotonic() - began)
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int, workers: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200 and counters(port).get("tessera_workers", 1) == workers
    except (urllib.error.URLError, OSError):
        return False
