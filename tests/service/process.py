"""`tessera serve` in a process of its own, on a free port of loopback."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.service.fakes import free_port, wait_until
from tests.service.server import proved

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-c", "from tessera.cli import main; main()", "serve", *arguments]


@contextmanager
def process(
    bundle: Path, state: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    running = subprocess.Popen(
        command("--bundle", str(bundle), "--port", str(port), *arguments),
        cwd=ROOT,
        env={**os.environ, "TESSERA_STATE": str(proved(bundle, state)), "TESSERA_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: ready(port))
        yield running, port
    finally:
        running.kill()
        running.communicate()


def ready(port: int) -> bool:
    try:
        return ask(port, "GET", "/readyz")[0] == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: bytes | None = None, timeout_s: float = 20) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
