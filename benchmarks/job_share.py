"""What a request waits for beside a running job: its latency with and without one, alternating, in one run.

    python -m benchmarks.job_share [--bundle BUNDLE] [--requests 60] [--rounds 3] [--clients 1] [--size 480x360]

Clients ask one photo after the other, with nothing kept for images asked again. In every second round
a job of more images than the round has time for is under way. Told are the median and the 99th percentile of both,
requests a second, and the job's images a second beside them and alone.

Knows nothing of how a server decides.
"""

import argparse
import http.client
import io
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.own_server import serving
from service.settings import embedded
from training.data.synthetic import street

PORT = 8206
_PHOTOS = 20
_IMAGES = 2000
_ALONE_S = 4.0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--requests", type=int, default=60, help="of each client in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--size", default="480x360", help="of the photos, width × height")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    few = [_jpeg(seed, (height, width)) for seed in range(_PHOTOS)]
    photos, archive = cycle(few), _zip(few)
    with tempfile.TemporaryDirectory() as folder:
        env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_STATE": folder}
        with serving(given.bundle, Path(folder, "log"), port=PORT, env=env):
            _round(_work(photos, given.clients, 5))
            times: dict[bool, list[float]] = {False: [], True: []}
            spent, beside, alone = {False: 0.0, True: 0.0}, 0.0, []
            for number in range(2 * given.rounds):
                busy = number % 2 == 1
                work = _work(photos, given.clients, given.requests)
                job = _begin(archive) if busy else ""
                done = _done(job) if busy else 0
                began = time.perf_counter()
                times[busy] += _round(work)
                spent[busy] += time.perf_counter() - began
                if busy:
                    beside += _done(job) - done
                    done, began = _done(job), time.perf_counter()
                    time.sleep(_ALONE_S)
                    alone.append((_done(job) - done) / (time.perf_counter() - began))
                    _call("DELETE", f"/jobs/{job}")
    for busy, name in ((False, "without a job"), (True, "beside a job")):
        p50, p99 = np.percentile(times[busy], [50, 99]) * 1000
        rate = len(times[busy]) / spent[busy]
        print(f"{name:14} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  {rate:6.2f} requests/s  ({len(times[busy])} requests)")
    print(f"the job        {beside / spent[True]:.2f} images/s beside requests, {np.median(alone):.2f} alone")
    return 0


def _jpeg(seed: int, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(street(size, seed=seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _zip(photos: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(_IMAGES):
            archive.writestr(f"{number}.jpg", photos[number % len(photos)])
    return buffer.getvalue()


def _work(photos: Iterator[bytes], clients: int, requests: int) -> list[list[bytes]]:
    return [[next(photos) for _ in range(requests)] for _ in range(clients)]


def _round(work: list[list[bytes]]) -> list[float]:
    """Seconds that each request took."""

    def ask(own: list[bytes]) -> list[float]:
        took = []
        for photo in own:
            began = time.perf_counter()
            _call("POST", "/segment?format=png", photo)
            took.append(time.perf_counter() - began)
        return took

    with ThreadPoolExecutor(len(work)) as pool:
        return [seconds for found in pool.map(ask, work) for seconds in found]


def _begin(archive: bytes) -> str:
    """A job that has begun to run."""
    job = str(json.loads(_call("POST", "/jobs?format=png", archive))["id"])
    while _done(job) < 2:
        time.sleep(0.1)
    return job


def _done(job: str) -> int:
    return int(json.loads(_call("GET", f"/jobs/{job}"))["progress"]["done"])


def _call(method: str, path: str, body: bytes = b"") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:200]!r}")
        return data
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
