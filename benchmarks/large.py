"""What large images cost the server: memory over idle, CPU seconds, and what a small photo waits beside them.

    python -m benchmarks.large [--bundle BUNDLE] [--side 7000] [--rounds 3] [--only strips]

Files of 49 Mpx are drawn here (16-bit RGB in strips and in tiles, as one strip, as PNG; float32; int32), and 64 JPEGs
of 5 Mpx. Every case has a server of its own on loopback, warm, nothing kept for images asked again. Memory is the
resident memory of the server and all processes below it, looked at every few milliseconds, over what it was before; CPU
seconds are those of the same processes, network and answer included. Beside two large images a small photo is asked for
again and again: its longest time counts. The worst of the rounds is held against BOUNDS, and the exit code is 1 where a
bound is passed. Written to benchmarks/results/large.json.

Knows nothing of how a server decides.
"""

import argparse
import http.client
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from imagecodecs import png_encode
from numpy.typing import NDArray

from benchmarks import load, machine
from benchmarks.own_server import OwnServer, ServerError, serving
from models.bundle import Bundle
from models.errors import TesseraError
from models.io.encode import encode
from service.settings import embedded
from training.data.synthetic import street

PORT = 8205
MANY, MANY_SIDE = 64, 2236  # images of one request, and their side: 5 Mpx
_EVERY_S = 0.004
_SETTLED_S = 0.5
_BOUNDARY = "benchmark"

Array = NDArray[Any]


@dataclass(frozen=True)
class Bound:
    """What a case may take: MB over idle (`of_pixels`: times the decoded samples), CPU seconds, a small photo's."""

    peak_mb: float | None = None
    of_pixels: float | None = None
    cpu_s: float | None = None
    small_s: float | None = None


BOUNDS = {
    "strips": Bound(peak_mb=450, cpu_s=1.5),
    "tiles": Bound(peak_mb=450, cpu_s=1.5),
    "one-strip": Bound(of_pixels=1.6),
    "png16": Bound(of_pixels=1.6),
    "float32": Bound(peak_mb=450),
    "int32": Bound(peak_mb=450),
    "many": Bound(peak_mb=450),
    "beside": Bound(small_s=1.0),
}


@dataclass(frozen=True)
class Cost:
    """One request, or several at once.

    peak_mb  over idle;  small_s  the longest a small photo took beside them, 0 where there was none
    """

    peak_mb: float
    cpu_s: float
    wall_s: float
    small_s: float = 0.0


def colors(side: int, seed: int = 0) -> Array:
    """RGB uint16 [side, side, 3] of a drawn street, with nothing finer in it than the drawing has: it packs well."""
    drawn = street((500, 500), seed=seed)
    at = np.arange(side) * 500 // side
    return np.ascontiguousarray((drawn.astype(np.uint16) * 200 + 900)[at][:, at])


def tiff(samples: Array, **options: Any) -> bytes:
    """A deflated TIFF's bytes."""
    buffer = io.BytesIO()
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(
        buffer, samples, photometric=photometric, compression="zlib", compressionargs={"level": 1}, **options
    )
    return buffer.getvalue()


def png16(samples: Array) -> bytes:
    """A 16-bit PNG's bytes."""
    return bytes(png_encode(samples, level=1))


FILES: dict[str, tuple[int, Callable[[int], bytes]]] = {  # bytes of a pixel's samples, and the file of a side
    "strips": (6, lambda side: tiff(colors(side), rowsperstrip=64, predictor=True)),
    "tiles": (6, lambda side: tiff(colors(side), tile=(256, 256), predictor=True)),
    "one-strip": (6, lambda side: tiff(colors(side), rowsperstrip=side)),
    "png16": (6, lambda side: png16(colors(side))),
    "float32": (4, lambda side: tiff(colors(side)[..., 1].astype(np.float32) / 7, rowsperstrip=64)),
    "int32": (4, lambda side: tiff(colors(side)[..., 1].astype(np.int32) * 1000, rowsperstrip=64)),
}


def many(count: int = MANY, side: int = MANY_SIDE) -> list[bytes]:
    """Different JPEGs of the same size."""
    one = (colors(side) >> 8).astype(np.uint8)
    return [encode(np.roll(one, 31 * shift, axis=1), "jpeg", 70) for shift in range(count)]


def ask(port: int, body: bytes, query: str = "format=png", kind: str = "application/octet-stream") -> bytes:
    """The answer. Raises ServerError where it is no 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", f"/segment?{query}", body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise ServerError(f"{answer.status}: {content[:300].decode(errors='replace')}")
    return content


def ask_all(port: int, images: list[bytes]) -> None:
    """Several images in one form. Raises ServerError where one of them has no answer."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode()
    body = b"".join(head + image + b"\r\n" for image in images) + f"--{_BOUNDARY}--\r\n".encode()
    answer = json.loads(ask(port, body, "format=json", f"multipart/form-data; boundary={_BOUNDARY}"))
    if failed := [result for result in answer["results"] if "clusters" not in result]:
        raise ServerError(f"{len(failed)} of {len(images)} images: {failed[0]}")


@contextmanager
def watched(server: OwnServer) -> Iterator[Callable[[], Cost]]:
    """Around work of a server that is idle before; what is yielded tells the cost, once the block is left."""
    time.sleep(_SETTLED_S)
    idle, used, began = machine.rss_mb(server.pid), machine.cpu_s(server.pid), time.perf_counter()
    peak, done = idle, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(_EVERY_S):
            peak = max(peak, machine.rss_mb(server.pid))

    looking = threading.Thread(target=look)
    looking.start()
    took = 0.0
    try:
        yield lambda: Cost(peak - idle, spent, took)
    finally:
        took = time.perf_counter() - began
        done.set()
        looking.join()
        spent = machine.cpu_s(server.pid) - used


def single(server: OwnServer, image: bytes) -> Cost:
    """One large image."""
    with watched(server) as cost:
        ask(server.port, image)
    return cost()


def beside(server: OwnServer, image: bytes, small: bytes) -> Cost:
    """Two large images at once, and a small photo again and again until both are answered."""
    times: list[float] = []
    with watched(server) as cost, ThreadPoolExecutor(2) as pool:
        large = [pool.submit(ask, server.port, image) for _ in range(2)]
        while not all(answer.done() for answer in large):
            began = time.perf_counter()
            ask(server.port, small)
            times.append(time.perf_counter() - began)
        for answer in large:
            answer.result()
    found = cost()
    return Cost(found.peak_mb, found.cpu_s, found.wall_s, max(times))


def worst(costs: list[Cost]) -> Cost:
    """The most of each figure; the median where no bound is on it."""
    return Cost(
        max(c.peak_mb for c in costs),
        max(c.cpu_s for c in costs),
        statistics.median(c.wall_s for c in costs),
        max(c.small_s for c in costs),
    )


def passed(case: str, cost: Cost, decoded_mb: float) -> list[str]:
    """Which bounds of a case are not kept, in words."""
    bound = BOUNDS[case]
    most_mb = bound.peak_mb if bound.of_pixels is None else bound.of_pixels * decoded_mb
    over = []
    if most_mb is not None and cost.peak_mb > most_mb:
        over.append(f"{cost.peak_mb:.0f} MB over idle, {most_mb:.0f} are the most")
    if bound.cpu_s is not None and cost.cpu_s > bound.cpu_s:
        over.append(f"{cost.cpu_s:.2f} s of CPU, {bound.cpu_s} are the most")
    if bound.small_s is not None and cost.small_s > bound.small_s:
        over.append(f"a small photo took {cost.small_s:.2f} s, {bound.small_s} is the most")
    return over


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--side", type=int, default=7000, help="of the large images, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=BOUNDS, action="append", help="these cases")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    try:
        sys.exit(_all(given))
    except TesseraError as error:
        sys.exit(str(error))


def _all(given: argparse.Namespace) -> int:
    small = encode(street((360, 480), seed=1), "jpeg")
    found: dict[str, Any] = {}
    print("| case | file MB | MB over idle | CPU s | wall s | small photo s | |\n|---|---|---|---|---|---|---|")
    for case in given.only or BOUNDS:
        per_pixel, draw = FILES.get(case) or FILES["strips"]
        files = many() if case == "many" else [draw(given.side)]
        costs = []
        with tempfile.TemporaryDirectory() as folder:
            env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_STATE": folder, "TESSERA_ENGINE": "onnxruntime"}
            with serving(given.bundle.resolve(), Path(folder, "log"), port=PORT, env=env) as server:
                for _ in range(5):
                    ask(server.port, small)
                for _ in range(given.rounds):
                    if case == "many":
                        with watched(server) as cost:
                            ask_all(server.port, files)
                        costs.append(cost())
                    elif case == "beside":
                        costs.append(beside(server, files[0], small))
                    else:
                        costs.append(single(server, files[0]))
        cost = worst(costs)
        over = passed(case, cost, per_pixel * given.side**2 / 1e6)
        size_mb = sum(len(file) for file in files) / 1e6
        small_s = f"{cost.small_s:.2f}" if cost.small_s else ""
        print(
            f"| {case} | {size_mb:.1f} | {cost.peak_mb:.0f} | {cost.cpu_s:.2f} | {cost.wall_s:.2f} | {small_s} |"
            f" {'; '.join(over)} |",
            flush=True,
        )
        found[case] = {
            "file_mb": round(size_mb, 2),
            **{name: round(value, 3) for name, value in asdict(cost).items()},
            "bounds": {name: value for name, value in asdict(BOUNDS[case]).items() if value is not None},
            "kept": not over,
        }
    if not (given.no_keep or given.only):
        load.RESULTS.mkdir(exist_ok=True)
        what = {
            "what": "python -m benchmarks.large",
            "bundle": Bundle.load(given.bundle).ref,
            "side_px": given.side,
            "rounds": given.rounds,
            "machine": machine.describe(),
            "versions": machine.versions(
                Path(sys.executable), ["tessera-segmentation", "numpy", "pillow", "tifffile", "imagecodecs"]
            ),
        }
        (load.RESULTS / "large.json").write_text(json.dumps({**what, "cases": found}, indent=1) + "\n")
    return 0 if all(case["kept"] for case in found.values()) else 1


if __name__ == "__main__":
    main()
