"""`tessera segment` beside POST /segment: the same files, the same bundle, in turns.

    python -m benchmarks.offline [BUNDLE] [--images 400] [--rounds 3] [--clients 8] [--port 8204]

Every round a server of ours answers each file once, to a client on this machine with so many connections, cache off;
then the command writes label maps of the same files. The command's own pace, from its first image to its last, and its
wall time with its start are told beside the requests/s of the server. The label maps of both are equal, or the run
counts for nothing.

Knows nothing of how an answer is made.
"""

import argparse
import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks import machine
from benchmarks.load import Client, request
from benchmarks.own_server import OwnServer, ServerError, command, serving
from service.settings import embedded
from training.data.synthetic import street

_DRAWN = 24
_ENV = {"TESSERA_CACHE_BYTES": "0"}


def photos(folder: Path, count: int) -> list[Path]:
    """Drawn streets, 320×320 JPEG, as files, in turns."""
    drawn = []
    for seed in range(_DRAWN):
        buffer = io.BytesIO()
        Image.fromarray(street((320, 320), seed=seed)).save(buffer, "JPEG", quality=90)
        drawn.append(buffer.getvalue())
    paths = [folder / f"{i:05}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(drawn[i % _DRAWN])
    return paths


async def rate(server: OwnServer, paths: Sequence[Path], clients: int) -> float:
    """Requests/s of a closed loop over the files, each read when its turn comes."""
    client, waiting = Client(server.port), iter(paths)

    async def one() -> None:
        for path in waiting:
            status, _ = await client.post(request("format=png", path.read_bytes()))
            if status != 200:
                raise ServerError(f"the server answers {status}")

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(clients)))
    wall = time.monotonic() - began
    await client.close()
    return len(paths) / wall


def answers(server: OwnServer, paths: Sequence[Path]) -> list[bytes]:
    """The server's label maps of some files."""
    url = f"http://127.0.0.1:{server.port}/segment?format=png"
    made = []
    for path in paths:
        with urllib.request.urlopen(url, path.read_bytes(), timeout=60) as answer:
            made.append(answer.read())
    return made


def written(bundle: Path, folder: Path, out: Path) -> tuple[float, float]:
    """The command's own images/s, and its wall time."""
    began = time.monotonic()
    line = [command(), "segment", folder, "--out", out, "--bundle", bundle]
    done = subprocess.run(line, env={**os.environ, **_ENV}, capture_output=True, text=True, check=True)
    pace = re.search(r"([0-9.e+]+) images/s; they are in", done.stderr)
    if pace is None:
        raise ServerError(f"the command says {done.stderr[-200:]!r}")
    return float(pace[1]), time.monotonic() - began


def main() -> None:
    """Prints a line a round, and the median. Exit code 1 where label maps differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=embedded()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--port", type=int, default=8204)
    given = parser.parse_args()
    print(machine.describe())
    ratios = []
    with tempfile.TemporaryDirectory() as made:
        folder, log = Path(made) / "photos", Path(made) / "log"
        folder.mkdir()
        paths = photos(folder, given.images)
        for turn in range(given.rounds):
            out = Path(made) / f"labels{turn}"
            with serving(given.bundle, log, port=given.port, env=_ENV) as server:
                asked, expected = asyncio.run(rate(server, paths, given.clients)), answers(server, paths[:_DRAWN])
            pace, wall = written(given.bundle, folder, out)
            if expected != [(out / f"{path.stem}.png").read_bytes() for path in paths[:_DRAWN]]:
                sys.exit("the command's label maps are not the server's: this counts for nothing")
            ratios.append(pace / asked)
            print(
                f"server {asked:.1f} images/s; command {pace:.1f} ({wall:.1f} s with its start), {ratios[-1]:.2f} times"
            )
    print(
        f"median {statistics.median(ratios):.2f} times the server's [{min(ratios):.2f}–{max(ratios):.2f}]; maps equal"
    )


if __name__ == "__main__":
    main()
