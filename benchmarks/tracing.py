"""What traces cost: this tree's server with every request traced, and without, side by side.

    make peers                                         once: the networks in runs/bench
    python -m benchmarks.tracing [--bundle runs/bench/bundles/tiny] [--clients 32] [--starts 4] [--rounds 4] [--secs 2]

The loads, the turns and the bounds of a round are those of `benchmarks/commits.py`. Spans go to a sink on loopback, a
process of its own that reads and drops them. Prints the median of the rounds' ratios, and the processor's time for an
image.

Knows nothing of spans.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import load
from benchmarks.commits import PORT, Pair, compare, jpeg
from benchmarks.own_server import serving

_TINY = Path(__file__).resolve().parents[1] / "runs" / "bench" / "bundles" / "tiny"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=_TINY)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--starts", type=int, default=4, help="of both servers")
    parser.add_argument("--rounds", type=int, default=4, help="after each start")
    parser.add_argument("--secs", type=float, default=2.0, help="of each round and server")
    given = parser.parse_args()
    sent = [load.request("format=png", jpeg(seed)) for seed in range(48)]
    rounds: list[Pair] = []
    with _sink() as collector, tempfile.TemporaryDirectory() as folder:
        plain = {"TESSERA_CACHE_BYTES": "0", "TESSERA_ACCESS_LOG": "false", "TESSERA_STATE": folder}
        traced = {**plain, "TESSERA_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
        for start in range(given.starts):
            ports = (PORT, PORT + 1) if start % 2 else (PORT + 1, PORT)
            on = serving(given.bundle, Path(folder) / "on.log", port=ports[0], env=traced)
            off = serving(given.bundle, Path(folder) / "off.log", port=ports[1], env=plain)
            with on as traces, off as none:
                rounds += asyncio.run(compare(traces, none, sent, given.clients, given.rounds, given.secs))
    ratio = statistics.median(pair.mine.per_s / pair.other.per_s for pair in rounds)
    rates = [statistics.median(one.per_s for one in side) for side in zip(*rounds, strict=True)]
    costs = [statistics.median(one.cpu_ms for one in side) for side in zip(*rounds, strict=True)]
    print(
        f"traced / not: {rates[0]:.1f} / {rates[1]:.1f} images/s, ratio {ratio:.3f}; processor {costs[0]:.2f} /"
        f" {costs[1]:.2f} ms an image"
    )
    return 0


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read, and dropped."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _serve(told: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    told.send(server.server_port)
    server.serve_forever()


@contextmanager
def _sink() -> Iterator[str]:
    """The URL of a collector."""
    mine, theirs = (context := get_context("spawn")).Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{mine.recv()}"
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    sys.exit(main())
