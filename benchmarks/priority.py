"""What a key's urgent image waits for beside another key's flood of dense CRFs, over the whole server.

    python -m benchmarks.priority [--bundle BUNDLE] [--flood 40] [--trials 5] [--size 480x360]

The image is asked for alone, with crf=true; then again with priority=10 while another key's images, all with crf=true,
are inside. It should take no more than 1.5 times its lone time and the time of one CRF that was running already (which
is what an image's CRF takes beside another one, told by the flood's own Server-Timing). Medians, and the exit code 1
where that is not so. Different photos each time; nothing is kept for images asked again.

Knows nothing of how a server decides.
"""

import argparse
import http.client
import io
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from PIL import Image

from benchmarks.own_server import ServerError, serving
from service.settings import embedded
from training.data.synthetic import street

PORT = 8204
KEYS = {"flood": "flood-secret", "urgent": "urgent-secret"}
_BOUND = 1.5


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--flood", type=int, default=40)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--size", default="480x360", help="of the photos, width × height")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    photos = (_jpeg(seed, (height, width)) for seed in count())
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "TESSERA_KEYS": ",".join(f"{name}={secret}" for name, secret in KEYS.items()),
            "TESSERA_CACHE_BYTES": "0",
            "TESSERA_STATE": folder,
        }
        with serving(given.bundle, Path(folder, "log"), port=PORT, env=env):
            for _ in range(3):
                _ask(next(photos), "urgent")  # warm
            lone = statistics.median(_ask(next(photos), "urgent")[0] for _ in range(2 * given.trials + 1))
            beside, crfs = [], []
            for _ in range(given.trials):
                flood = [next(photos) for _ in range(given.flood)]
                with ThreadPoolExecutor(given.flood) as pool:
                    answers = [pool.submit(_ask, photo, "flood") for photo in flood]
                    time.sleep(2 * lone)
                    inside = sum(not answer.done() for answer in answers)
                    beside.append(_ask(next(photos), "urgent", "&priority=10")[0])
                    crfs += [answer.result()[1] for answer in answers]
                if inside < given.flood / 2:
                    raise ServerError(f"only {inside} of the flood were still inside: make it larger")
    crf, urgent = statistics.median(crfs), statistics.median(beside)
    most = _BOUND * lone + crf
    print(
        f"alone {lone * 1000:.0f} ms, one CRF beside others {crf * 1000:.0f} ms; urgent beside {given.flood} of another"
        f" key {urgent * 1000:.0f} ms [{min(beside) * 1000:.0f}–{max(beside) * 1000:.0f}], {urgent / most:.2f} of"
        f" {_BOUND:g} × alone + one CRF = {most * 1000:.0f} ms"
    )
    return 0 if urgent <= most else 1


def _jpeg(seed: int, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(street(size, seed=seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ask(photo: bytes, key: str, more: str = "") -> tuple[float, float]:
    """Seconds until the whole answer was here, and those of its CRF."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    began = time.perf_counter()
    connection.request("POST", f"/segment?format=png&crf=true{more}", photo, {"X-API-Key": KEYS[key]})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    if answer.status != 200 or answer.getheader("x-warning"):
        raise ServerError(f"{answer.status}: {answer.getheader('x-warning') or body[:200].decode(errors='replace')}")
    crf = re.search(r"crf;dur=([\d.]+)", answer.getheader("server-timing", ""))
    connection.close()
    return took, float(crf[1]) / 1000 if crf else 0.0


if __name__ == "__main__":
    sys.exit(main())
