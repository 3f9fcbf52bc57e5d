"""What an image costs that was asked before, with other options: the score cache's figure.

Knows nothing of the comparison: one server of ours, drawn streets, one client.
"""

import http.client
import io
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.own_server import ServerError, serving
from models.bundle import Bundle
from training.data.synthetic import street

PORT = 8201
_IMAGES = 24


class Repeat(NamedTuple):
    """Median milliseconds of an image's first request, and of later ones with other options.

    options  query → median ms;  ratio  first by the median of all later ones
    passes   of the network, for `images` images asked 1 + len(options) times each
    """

    first_ms: float
    later_ms: float
    ratio: float
    options: dict[str, float]
    images: int
    passes: int

    def sentence(self) -> str:
        """One line for people."""
        each = ", ".join(f"{query} {ms:.1f}" for query, ms in self.options.items())
        return (
            f"repeat with other options: {self.first_ms:.1f} ms, then {self.later_ms:.1f} ms: {self.ratio:.1f} times"
            f" cheaper ({each}); {self.passes} encoder passes for {self.images} images"
        )


def measure_repeat(bundle: Path, work: Path, tessera: Path) -> Repeat:
    """First and later requests of drawn streets, in turn, with the cache at its default. Raises ServerError."""
    k = len(Bundle.load(bundle).manifest.clusters)
    queries = ["format=overlay", f"format=png&k={max(2, k // 2)}", "format=json", "format=png&crf=false"]
    log = work / "results" / "repeat.server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    state = {"TESSERA_STATE": str((work / "state").resolve())}
    with serving(bundle, log, port=PORT, env=state, tessera=tessera) as server:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        for query in ("format=png", *queries):  # warm: its own image
            _ask(connection, _jpeg(_IMAGES), query)
        before = server.counters()
        first: list[float] = []
        later: dict[str, list[float]] = {query: [] for query in queries}
        for seed in range(_IMAGES):
            photo = _jpeg(seed)
            first.append(_ask(connection, photo, "format=png"))
            for query in queries:
                later[query].append(_ask(connection, photo, query))
        after = server.counters()
        connection.close()
    passes = after["tessera_batch_images_sum"] - before["tessera_batch_images_sum"]
    once, again = statistics.median(first), statistics.median([ms for each in later.values() for ms in each])
    options = {query: round(statistics.median(each), 3) for query, each in later.items()}
    return Repeat(round(once, 3), round(again, 3), round(once / again, 2), options, _IMAGES, round(passes))


def _jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(street((320, 320), seed=seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ask(connection: http.client.HTTPConnection, photo: bytes, query: str) -> float:
    """Milliseconds until the whole answer is here."""
    began = time.perf_counter()
    connection.request("POST", f"/segment?{query}", photo, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ServerError(f"/segment?{query}: {answer.status}: {body[:200].decode(errors='replace')}")
    return (time.perf_counter() - began) * 1000
