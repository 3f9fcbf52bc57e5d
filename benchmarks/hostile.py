"""What hostile files cost a server: how soon each is answered or refused, memory, and what a neighbor's photo waits.

    python -m benchmarks.hostile [--bundle BUNDLE] [--only "tiff: 5,000 directories"] [--together 2] [--json FILE]

Every kind of `benchmarks.hostile_files` is sent to a server of our own on loopback, warm, nothing kept for images asked
again: once while its memory is watched, then again and again, `--together` at a time, while another client asks for a
small photo, as it does before that beside a photo like it. The neighbor's longest wait is held against twice its lone
time and 200 ms; what a header refuses has 50 ms and 20 MB. Then a file that takes long is asked for with little time,
and its client leaves: in the half second that begins half a second later the server may use no more than a tenth of a
core. Exit code 1 where a bound is passed.

Knows nothing of how a server decides.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.hostile_files import KINDS, Outcome
from benchmarks.large import watched
from benchmarks.own_server import OwnServer, serving
from models.errors import TesseraError
from models.io.encode import encode
from service.settings import embedded
from training.data.synthetic import street

PORT = 8207
REFUSED_MS, REFUSED_MB, AFTERWARDS_CORES = 50.0, 20.0, 0.1
BESIDE_MS = 200.0  # that a neighbor's photo may wait beside twice its lone time
_LONE, _BESIDE_S = 30, 1.0
_SLOW = "jpeg 2000: what takes long"


@dataclass(frozen=True)
class Row:
    """One kind: the answer's status, its time and memory over idle, and a neighbor's photo beside it, at worst."""

    kind: str
    status: int
    ms: float
    peak_mb: float
    beside_ms: float
    over: tuple[str, ...]


def ask(port: int, body: bytes, query: str = "format=png", patience_s: float = 120.0) -> int:
    """The answer's status; 0 where the client's patience ended first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_s)
    try:
        connection.request("POST", f"/segment?{query}", body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except TimeoutError:
        return 0
    finally:
        connection.close()


def timed(port: int, body: bytes) -> float:
    """Milliseconds to the answer."""
    began = time.perf_counter()
    ask(port, body)
    return (time.perf_counter() - began) * 1000


@contextmanager
def sent_again_and_again(port: int, body: bytes, together: int) -> Iterator[None]:
    """So many clients that send a file, again as soon as they have an answer, for as long as the block runs."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            ask(port, body)

    senders = [threading.Thread(target=send) for _ in range(together)]
    for sender in senders:
        sender.start()
    try:
        yield
    finally:
        done.set()
        for sender in senders:
            sender.join()


def row(server: OwnServer, kind: str, photo: bytes, lone_ms: float, together: int = 1) -> Row:
    """One kind, measured."""
    file, outcome = KINDS[kind].make(), KINDS[kind].outcome
    return measured(server, kind, file, outcome, photo, lone_ms, together)


def measured(
    server: OwnServer, kind: str, file: bytes, outcome: Outcome, photo: bytes, lone_ms: float, together: int
) -> Row:
    """The same of a file that is there."""
    with watched(server) as cost:
        status = ask(server.port, file)
    ms, peak_mb = cost().wall_s * 1000, cost().peak_mb
    waits: list[float] = []
    with sent_again_and_again(server.port, file, together):
        began = time.perf_counter()
        while time.perf_counter() - began < _BESIDE_S:
            waits.append(timed(server.port, photo))
    over = []
    if (status == 200) != (outcome == "answered") or status >= 500:
        over.append(f"{status}, and is to be {outcome}")
    if outcome == "refused" and ms > REFUSED_MS:
        over.append(f"refused after {ms:.0f} ms")
    if outcome == "refused" and peak_mb > REFUSED_MB:
        over.append(f"{peak_mb:.0f} MB to refuse it")
    if max(waits) > 2 * lone_ms + BESIDE_MS:
        over.append(f"a neighbor waited {max(waits):.0f} ms")
    return Row(kind, status, ms, peak_mb, max(waits), tuple(over))


def stops(server: OwnServer, query: str, patience_s: float) -> Row:
    """A file that takes long, with a deadline or a client that leaves: what of a core is used half a second later."""
    file = KINDS[_SLOW].make()
    began = time.perf_counter()
    status = ask(server.port, file, query, patience_s)
    ms = (time.perf_counter() - began) * 1000
    time.sleep(0.5)
    used = machine.cpu_s(server.pid)
    time.sleep(0.5)
    cores = (machine.cpu_s(server.pid) - used) / 0.5
    over = (f"{cores:.2f} cores are used afterwards",) if cores > AFTERWARDS_CORES else ()
    return Row(f"{_SLOW}, {query if status else 'and its client leaves'}", status, ms, 0.0, 0.0, over)


def measure(bundle: Path, kinds: list[str], together: int = 1, port: int = PORT) -> Iterator[Row]:
    """A row for each kind, by one server; then what stops. Raises ServerError where it does not start."""
    photo = encode(street((360, 480), seed=1), "jpeg")
    with tempfile.TemporaryDirectory() as folder:
        env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_STATE": folder, "TESSERA_ENGINE": "onnxruntime"}
        with serving(bundle.resolve(), Path(folder, "log"), port=port, env=env) as server:
            lone_ms = statistics.median(timed(port, photo) for _ in range(_LONE))
            yield Row("a photo, alone", 200, lone_ms, 0.0, lone_ms, ())
            yield measured(server, "another photo", photo, "answered", photo, lone_ms, together)
            for kind in kinds:
                yield row(server, kind, photo, lone_ms, together)
            if _SLOW in kinds:
                yield stops(server, "timeout_ms=300", 10.0)
                yield stops(server, "format=png", 0.3)


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--only", choices=KINDS, action="append", help="these kinds")
    parser.add_argument("--together", type=int, default=1, help="clients that send the file at once")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--json", type=Path, help="a file for the rows")
    given = parser.parse_args()
    rows = []
    print("| kind | answer | ms | MB over idle | neighbor, ms | over its lone time | |\n|---|---|---|---|---|---|---|")
    try:
        for each in measure(given.bundle, given.only or list(KINDS), given.together, given.port):
            rows.append(each)
            ratio = f"{each.beside_ms / rows[0].ms:.1f}" if each.beside_ms else ""
            print(
                f"| {each.kind} | {each.status or 'left'} | {each.ms:.0f} | {each.peak_mb:.0f} | {each.beside_ms:.0f} |"
                f" {ratio} | {'; '.join(each.over)} |",
                flush=True,
            )
    except TesseraError as error:
        sys.exit(str(error))
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    sys.exit(any(each.over for each in rows))


if __name__ == "__main__":
    main()
