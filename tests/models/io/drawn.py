"""Pictures drawn for the tests of this folder, and their files as other writers make them."""

import io
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import Image

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)


def textured(height: int, width: int) -> Image.Image:
    """Edges, slopes and noise: what tells one upsampling of colors from another."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width))
    channels = [(x * 7 + y * 3) % 256, ((x // 5 + y // 3) % 2) * 200, noise]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file Pillow makes of it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: np.ndarray, **options: object) -> bytes:
    """The file tifffile makes of samples [H, W], [H, W, bands] or [pages, H, W]."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def directory_file(tags: dict[int, Any], body: bytes, big_endian: bool = False) -> bytes:
    """A file of one strip or tile and one directory, written number by number."""
    order = ">" if big_endian else "<"
    start = 8
    offsets = {324: start, 325: len(body)} if 322 in tags else {273: start, 279: len(body)}
    entries, extra = b"", b""
    tags = dict(sorted({**offsets, **tags}.items()))
    at = start + len(body) + len(body) % 2
    values_at = at + 2 + 12 * len(tags) + 4
    for tag, value in tags.items():
        if isinstance(value, (bytes, str)):
            raw, kind, count = (
                value.encode() + b"\0" if isinstance(value, str) else value,
                2,
                len(value) + isinstance(value, str),
            )
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            kind, count = (4, len(numbers)) if max(numbers) > 65535 else (3, len(numbers))
            raw = struct.pack(f"{order}{count}{'I' if kind == 4 else 'H'}", *numbers)
        if len(raw) > 4:
            entries += struct.pack(f"{order}HHII", tag, kind, count, values_at + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
        else:
            entries += struct.pack(f"{order}HHI", tag, kind, count) + raw.ljust(4, b"\0")
    magic = b"MM\0*" if big_endian else b"II*\0"
    head = magic + struct.pack(f"{order}I", at) + body + b"\0" * (len(body) % 2)
    return head + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + extra
