"""`tessera bench`: the throughput and latency of a server, as many clients see them.

    tessera bench                                        # the embedded default, in a server of its own
    tessera bench --url http://gpu:8000 --images photos --concurrency 32 --seconds 30

Every request is a file of its own to the server, whose memory of answers would be measured otherwise. Knows nothing of
how a server works.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from models import hardware
from models.errors import TesseraError, UsageError
from models.io.decode import SUFFIXES
from models.io.encode import encode
from models.preprocess import resize
from models.terminal.progress import exit_code, say
from tessera.client import AsyncClient, ClientError, Refused

_DRAWN, _CELLS = 16, 12
_START_S = 120.0
_PERCENTILES = (50, 90, 95, 99)

app = typer.Typer(add_completion=False, help="Throughput and latency of a server.")


@dataclass
class Measured:
    """What came of the requests of `seconds`: each answer's own seconds, and the others by what they ended with."""

    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    def summary(self) -> dict[str, Any]:
        """Numbers, as JSON has them; times in milliseconds."""
        ms = 1000 * np.array(self.took or [float("nan")])
        return {
            "answers": len(self.took),
            "errors": dict(self.errors),
            "seconds": round(self.seconds, 3),
            "images_per_s": round(len(self.took) / self.seconds, 3),
            "latency_ms": {
                "mean": round(float(ms.mean()), 3),
                **{f"p{p}": round(float(np.percentile(ms, p)), 3) for p in _PERCENTILES},
                "max": round(float(ms.max()), 3),
            }
            if self.took
            else None,
            "sent_mb_per_s": round(self.bytes_out / self.seconds / 1e6, 3),
            "received_mb_per_s": round(self.bytes_in / self.seconds / 1e6, 3),
        }


def main() -> None:
    """The command."""
    app()


@app.command()
def bench(
    url: Annotated[
        str | None,
        typer.Option(help="The server; without it one of the embedded default is started.", show_default=False),
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Files or folders to send; without it some are drawn.", show_default=False)
    ] = None,
    size: Annotated[str, typer.Option(help="Width×height of drawn ones.")] = "480x360",
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests at once.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, max=86400, help="To measure for.")] = 10.0,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before that; several for each of those at once.")] = 16,
    format: Annotated[str, typer.Option(help="Of the answers.")] = "png",
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the requests, such as crf=true.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="BENCH_KEY", help="Where the server wants one.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="The numbers as JSON.")] = False,
) -> None:
    """Send images to a server for a while: images a second, percentiles of the time to an answer, errors by kind.

    Exit code 1 where a request was not answered.

    $ tessera bench --url http://localhost:8000 --concurrency 32 --seconds 30
    """
    console = Console(stderr=True)
    with exit_code(console):
        files = _files(images) if images else _drawn(*_size(size))
        chosen = dict(_option(text) for text in option or [])
        told, measured = asyncio.run(_bench(console, url, key, files, concurrency, seconds, warmup, format, chosen))
        report = {**told, "concurrency": concurrency, "format": format, "options": chosen, **measured.summary()}
        if json_:
            print(json.dumps(report, indent=1))
        else:
            Console().print(_table(report))
        if measured.errors or not measured.took:
            raise typer.Exit(1)


async def _bench(
    console: Console,
    url: str | None,
    key: str | None,
    files: Sequence[bytes],
    concurrency: int,
    seconds: float,
    warmup: int,
    format: str,
    options: dict[str, str],
) -> tuple[dict[str, Any], Measured]:
    async with AsyncExitStack() as stack:
        if url is None:
            say(console, "starting a server of the embedded default")
            url = await stack.enter_async_context(_server())
        client = await stack.enter_async_context(AsyncClient(url, key=key, retries=0))
        if not await client.ready():
            raise TesseraError(f"no server is ready at {url}; start one: tessera serve")
        model = await client.model(options["model"]) if "model" in options else (await client.models())[0]
        fresh = _fresh(files)
        say(console, f"warming {model.ref} up with {warmup} requests")
        await _ask(client, fresh, min(concurrency, max(1, warmup)), format, options, requests=warmup)
        say(console, f"asking for {seconds:g} s, {concurrency} at once")
        measured = await _ask(client, fresh, concurrency, format, options, seconds=seconds)
        told = {
            "url": url,
            "model": model.ref,
            "provider": model.provider,
            "images": len(files),
            "asked_from": f"{hardware.cores()} cores of {hardware.processor()}",
        }
        return told, measured


async def _ask(
    client: AsyncClient,
    fresh: Iterator[bytes],
    concurrency: int,
    format: str,
    options: dict[str, str],
    *,
    seconds: float = float("inf"),
    requests: int | None = None,
) -> Measured:
    """Requests for so long, or so many, each client's next once its last is answered."""
    measured, left = Measured(), count()
    began = time.perf_counter()

    async def one() -> None:
        while time.perf_counter() - began < seconds and (requests is None or next(left) < requests):
            data = next(fresh)
            start = time.perf_counter()
            try:
                answer = await client.segment_as(data, format, **options)  # type: ignore[arg-type]
            except ClientError as error:
                measured.errors[_kind(error)] += 1
                await asyncio.sleep(0.01)  # who refuses at once is not asked ten thousand times a second
                continue
            measured.took.append(time.perf_counter() - start)
            measured.bytes_in += len(answer)
            measured.bytes_out += len(data)

    await asyncio.gather(*(one() for _ in range(concurrency)))
    measured.seconds = time.perf_counter() - began
    return measured


def _kind(error: ClientError) -> str:
    return f"{error.status} {error.title}" if isinstance(error, Refused) else type(error).__name__


def _fresh(files: Sequence[bytes]) -> Iterator[bytes]:
    """The files in turn, each JPEG with another comment every time: the same picture, and not the same bytes."""
    for number in count():
        data = files[number % len(files)]
        if data.startswith(b"\xff\xd8"):
            text = b"tessera bench %d %d" % (os.getpid(), number)
            data = b"\xff\xd8\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]
        yield data


def _files(paths: Sequence[Path]) -> list[bytes]:
    """Raises UsageError where there is no image."""
    found = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        found += [file.read_bytes() for file in inside if file.is_file()]
    if not found:
        raise UsageError(f"--images: no image in {', '.join(map(str, paths))}")
    return found


def _drawn(height: int, width: int) -> list[bytes]:
    """JPEG files of soft patches of color with some grain: sizes and costs like photos'."""
    rng = np.random.default_rng(1)
    files = []
    for _ in range(_DRAWN):
        cells = rng.integers(0, 256, (_CELLS, _CELLS, 3), np.uint8)
        grain = rng.normal(0, 8, (height, width, 1))
        picture = np.clip(resize(cells, (height, width)).astype(np.float32) + grain, 0, 255).astype(np.uint8)
        files.append(encode(picture, "jpeg"))
    return files


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 20_000 and 1 <= int(height) <= 20_000):
        raise UsageError(f"--size {text}: write it as 480x360, sides of 1 to 20000 pixels")
    return int(height), int(width)


def _option(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise UsageError(f"--option {text}: write it as name=value")
    return name, value


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    """A server of the embedded default on loopback, in a process of its own, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="tessera-bench.") as state, tempfile.TemporaryFile() as log:
        settings = {
            name: value for name, value in os.environ.items() if name not in ("TESSERA_KEYS", "TESSERA_KEYS_FILE")
        }
        running = subprocess.Popen(
            [sys.executable, "-P", "-c", "from tessera.cli import main; main()", "serve", "--port", str(port)],
            env={
                **settings,
                "TESSERA_STATE": state,
                "TESSERA_ACCESS_LOG": "false",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=log,
            stderr=log,
        )
        try:
            async with AsyncClient(f"http://127.0.0.1:{port}") as client:
                end = time.monotonic() + _START_S
                while not await client.ready():
                    if running.poll() is not None or time.monotonic() > end:
                        log.seek(0)
                        said = log.read().decode(errors="replace").strip().splitlines()
                        raise TesseraError(f"the server did not start: {said[-1] if said else 'it says nothing'}")
                    await asyncio.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _table(report: dict[str, Any]) -> Table:
    table = Table(
        title=f"{report['model']} ({report['provider']}) at {report['url']}", title_justify="left", show_header=False
    )
    latency = report["latency_ms"] or {}
    rows = {
        "images/s": f"{report['images_per_s']:.2f}",
        "to an answer, ms": ", ".join(f"{name} {value:.1f}" for name, value in latency.items()) or "none came",
        "answers": f"{report['answers']} in {report['seconds']:.1f} s, {report['concurrency']} at once",
        "errors": ", ".join(f"{n} × {kind}" for kind, n in report["errors"].items()) or "none",
        "MB/s": f"{report['sent_mb_per_s']:.1f} sent, {report['received_mb_per_s']:.1f} received",
        "asked from": report["asked_from"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
