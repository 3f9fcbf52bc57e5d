"""What an sRGB profile costs a photo: decoding a JPEG that embeds one against the same JPEG without.

    python -m benchmarks.profiles [--rounds 400]

Drawn streets, one thread, milliseconds of the processor: medians over rounds that begin with either by turns. The two
answers are compared value by value.
"""

import argparse
import statistics
import time

from PIL import ImageCms
from rich.console import Console
from rich.table import Table

from models.io.decode import decode
from models.io.encode import encode
from training.data.synthetic import street

SIZES = ((320, 320), (768, 1024), (3000, 4000))


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="at 320×320; fewer of larger ones")
    rounds = parser.parse_args().rounds
    table = Table(title="milliseconds of one thread")
    for column in ("size", "without", "with sRGB", "ratio"):
        table.add_column(column, justify="right")
    for size in SIZES:
        plain = encode(street(size, seed=0), "jpeg")
        profiled = with_srgb(plain)
        if (decode(plain).image != decode(profiled).image).any():
            raise SystemExit("an sRGB profile changes pixels: it must not")
        spent: dict[bytes, list[float]] = {plain: [], profiled: []}
        for turn in range(max(20, rounds * SIZES[0][0] * SIZES[0][1] // (size[0] * size[1]))):
            for data in (plain, profiled) if turn % 2 else (profiled, plain):
                began = time.thread_time()
                decode(data)
                spent[data].append((time.thread_time() - began) * 1000)
        without, with_one = (statistics.median(of) for of in spent.values())
        table.add_row(f"{size[1]}×{size[0]}", f"{without:.3f}", f"{with_one:.3f}", f"{with_one / without:.3f}")
    Console().print(table)


def with_srgb(jpeg: bytes) -> bytes:
    """The file with littleCMS's sRGB profile behind its JFIF segment, as cameras and editors embed one."""
    body = b"ICC_PROFILE\0\1\1" + ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:at] + b"\xff\xe2" + (2 + len(body)).to_bytes(2, "big") + body + jpeg[at:]


if __name__ == "__main__":
    main()
