"""Files that ask for more work than a picture of their size should: each a kind, at a size that harms nobody.

A guard that refuses twice the limit refuses a thousand times it. Knows nothing of servers, of readers.
"""

import io
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Outcome = Literal["answered", "refused", "damaged"]
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _BYTES = (
    256, 257, 258, 259, 262, 273, 277, 278, 279,
)  # fmt: skip


class Hostile(NamedTuple):
    """A kind: how its file is made, and what becomes of it: `refused` by its header, `damaged` once it is decoded."""

    make: Callable[[], bytes]
    outcome: Outcome


def noise(side: int) -> NDArray[Any]:
    """RGB uint8 [side, side, 3] with something finer in it than codecs like."""
    slopes = np.add.outer(np.arange(side), np.arange(side))[..., None] // np.array([2, 3, 5])
    return ((slopes + np.random.default_rng(side).integers(0, 32, (side, side, 3))) % 256).astype(np.uint8)


def packed(image: NDArray[Any], kind: str, **options: Any) -> bytes:
    """The file that Pillow makes of it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: NDArray[Any], **options: Any) -> bytes:
    """The file that tifffile makes of it."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


# ---- TIFF


def _gray(**more: int | tuple[int, ...]) -> dict[int, int | tuple[int, ...]]:
    tags: dict[int, int | tuple[int, ...]] = {_WIDTH: 4, _HEIGHT: 4, _BITS: 8, _COMPRESSION: 1, _PHOTOMETRIC: 1}
    return (
        tags | {_OFFSETS: 8, _SAMPLES: 1, _ROWS: 4, _BYTES: 16} | {int(tag[1:]): value for tag, value in more.items()}
    )


def directories(count: int, tags: dict[int, int | tuple[int, ...]], last: int = 0, body: bytes = bytes(16)) -> bytes:
    """A file of so many like directories, whose last one names `last` as the next."""
    extra = b"".join(struct.pack(f"<{len(v)}I", *v) for v in tags.values() if isinstance(v, tuple))
    values, at = 8 + len(body), 8 + len(body) + len(extra)
    entries = b""
    for tag, value in sorted(tags.items()):
        many = value if isinstance(value, tuple) else (value,)
        entries += struct.pack("<HHII", tag, 4, len(many), values if isinstance(value, tuple) else value)
        values += 4 * len(many) if isinstance(value, tuple) else 0
    size = 2 + len(entries) + 4
    pages = [
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", at + size * (n + 1) if n + 1 < count else last)
        for n in range(count)
    ]
    return b"II*\0" + struct.pack("<I", at) + body + extra + b"".join(pages)


def overlapping(count: int, entries: int) -> bytes:
    """Directories of so many entries that lie inside each other, 24 bytes apart."""
    area = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(24 * count + 12 * entries + 8))
    for n in range(count):
        struct.pack_into("<H", area, 8 + 24 * n, entries)
        if n + 1 < count:  # where the next one lies stands behind this one's entries, which are the next ones'
            struct.pack_into("<I", area, 8 + 24 * n + 2 + 12 * entries, 8 + 24 * (n + 1))
    return bytes(area)


def text(tag: int, words: bytes) -> bytes:
    """A file of 4×4 pixels with a long text."""
    numbers = np.frombuffer(words + bytes(-len(words) % 4), "<u4")
    return directories(1, _gray(**{f"t{tag}": tuple(numbers.tolist())}))


def shared(count: int, size: int) -> bytes:
    """Tiles of 16×16 that all are the same long piece of the file."""
    side = 16 * count
    tags = {f"t{_WIDTH}": side, f"t{_HEIGHT}": side, "t322": 16, "t323": 16}
    places = {"t324": (8,) * count**2, "t325": (size,) * count**2}
    given = _gray(**tags, **places)
    return directories(1, {k: v for k, v in given.items() if k not in (_OFFSETS, _ROWS, _BYTES)}, body=bytes(size))


def jpeg_in_tile(side: int) -> bytes:
    """A tile of 64×64 whose own header says that it is larger."""
    whole = tiff(noise(64), tile=(64, 64), compression="jpeg")
    at = whole.index(b"\xff\xc0")
    return whole[: at + 5] + struct.pack(">HH", side, side) + whole[at + 9 :]


def large_tile() -> bytes:
    """A picture of 16×16 in one tile of 1024×1024 and 16 bytes a pixel."""
    tags = {f"t{_WIDTH}": 16, f"t{_HEIGHT}": 16, "t322": 1024, "t323": 1024, f"t{_BITS}": 64, f"t{_COMPRESSION}": 8}
    body = zlib.compress(bytes(16 * 2**20), 1)
    given = _gray(**tags, t324=8, t325=len(body), t339=3, t277=2)
    return directories(1, {k: v for k, v in given.items() if k not in (_OFFSETS, _ROWS, _BYTES)}, body=body)


# ---- JPEG


def jpeg_with(segment: bytes, times: int, **options: Any) -> bytes:
    """A file of 64×64 with so many more segments before its picture."""
    plain = packed(noise(64), "JPEG", **options)
    return plain[:2] + segment * times + plain[2:]


def scans(side: int, count: int) -> bytes:
    """A progressive file whose last scan is there again and again."""
    whole = packed(noise(side), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (count - whole.count(b"\xff\xda")) + whole[-2:]


# ---- PNG, GIF, WebP, BMP


def chunk(tag: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def png(width: int, height: int, bits: int, *before: bytes, rows: bytes | None = None) -> bytes:
    """A gray PNG of zeros, with chunks before its pixels."""
    if rows is None:
        rows = zlib.compress(bytes(height * (1 + -(-width * bits // 8))), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def apng(frames: int) -> bytes:
    """An animation of 8×8."""
    control = chunk(b"acTL", struct.pack(">II", frames, 0))
    rows = zlib.compress(bytes(8 * 9))
    parts = [
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * n, 8, 8, 0, 0, 1, 10, 0, 0))
        + chunk(b"fdAT", struct.pack(">I", 2 * n + 1) + rows)
        for n in range(frames)
    ]
    still = png(8, 8, 8, control)
    return still[:-12] + b"".join(parts) + still[-12:]


def gif(frames: int) -> bytes:
    """An animation of 8×8."""
    one = packed(noise(8)[..., 0], "GIF")
    at = one.index(b"\x2c", 13 + 3 * 2 ** ((one[10] & 7) + 1))
    return one[:-1] + one[at:-1] * (frames - 1) + one[-1:]


def webp_animation(frames: int) -> bytes:
    """An animation of 8×8."""
    first, *rest = [Image.new("RGB", (8, 8), (n % 256, n // 256, 99)) for n in range(frames)]
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=rest, method=0)
    return buffer.getvalue()


def bmp_runs(side: int) -> bytes:
    """A BMP that packs each pixel as a run of its own."""
    line = b"".join(bytes((1, x % 256)) for x in range(side)) + b"\0\0"
    body, palette = line * side + b"\0\1", bytes(1024)
    head = struct.pack("<2sIHHI", b"BM", 1078 + len(body), 0, 0, 1078)
    return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0) + palette + body


# ---- JPEG 2000, AVIF, DICOM


def boxes(kind: str, count: int) -> bytes:
    """A file of 64×64 with so many empty boxes behind its first one."""
    plain = packed(noise(64), kind)
    first = int.from_bytes(plain[:4], "big")
    return plain[:first] + b"\0\0\0\x08free" * count + plain[first:]


def dicom(elements: int = 0, fragments: int = 0) -> bytes:
    """A file of 64×64 with so many private elements, or with a frame in so many fragments."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.file_meta.TransferSyntaxUID = RLELossless if fragments else ExplicitVRLittleEndian
    data.Rows = data.Columns = 64
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 8, 8, 7, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    for n in range(elements):
        data.add_new(0x00090000 + 0x20000 * (n // 60000) + 0x1000 + n % 60000, "LO", "a")
    packed_rows = struct.pack("<16I", 1, 64, *[0] * 14) + (b"\xc1\x40" * 64)
    data.PixelData = (
        encapsulate([packed_rows], fragments_per_frame=fragments) if fragments else noise(64)[..., 0].tobytes()
    )
    data["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


KINDS: dict[str, Hostile] = {
    "tiff: 1,000 directories": Hostile(lambda: directories(1000, _gray()), "answered"),
    "tiff: 5,000 directories": Hostile(lambda: directories(5000, _gray()), "refused"),
    "tiff: a loop of directories": Hostile(lambda: directories(3, _gray(), last=24), "answered"),
    "tiff: directories inside each other": Hostile(lambda: overlapping(100, 4000), "refused"),
    "tiff: 500 tiled directories": Hostile(
        lambda: tiff(np.zeros((500, 16, 16), np.uint8), tile=(16, 16), metadata=None), "answered"
    ),
    "tiff: a text of zeros": Hostile(lambda: text(42113, bytes(2_000_000)), "answered"),
    "tiff: a text of open tags": Hostile(lambda: text(42112, b"<Item " * 20_000), "answered"),
    "tiff: a description of open tags": Hostile(lambda: text(270, b"<OME" + b"<Pixels " * 20_000), "answered"),
    "tiff: 200,000 numbers": Hostile(lambda: directories(1, _gray(t532=(1,) * 200_000)), "answered"),
    "tiff: 20,000 strips of a pixel": Hostile(
        lambda: tiff(np.zeros((20_000, 1), np.uint8), rowsperstrip=1), "refused"
    ),
    "tiff: 16,384 tiles": Hostile(lambda: tiff(np.zeros((2048, 2048), np.uint8), tile=(16, 16)), "refused"),
    "tiff: 1,024 tiles of JPEG": Hostile(
        lambda: tiff(noise(512), tile=(16, 16), compression="jpeg"), "answered"
    ),
    "tiff: a tile larger than the picture": Hostile(large_tile, "refused"),
    "tiff: tiles that share their bytes": Hostile(lambda: shared(32, 100_000), "refused"),
    "tiff: a tile whose JPEG is larger": Hostile(lambda: jpeg_in_tile(2048), "refused"),
    "jpeg: 5,000 segments": Hostile(lambda: jpeg_with(b"\xff\xe5\0\2", 5000), "refused"),
    "jpeg: 4,000 segments": Hostile(lambda: jpeg_with(b"\xff\xe5\0\2", 4000), "answered"),
    "jpeg: 2 MB of stuffing": Hostile(lambda: jpeg_with(b"", 0, progressive=True)[:-2] + b"\xff\0" * 10**6, "answered"),
    "jpeg: 90 scans": Hostile(lambda: scans(1024, 90), "answered"),
    "jpeg: 110 scans": Hostile(lambda: scans(64, 110), "refused"),
    "jpeg: two frames": Hostile(lambda: jpeg_with(b"\xff\xc0\0\x0b\x08\x10\0\x10\0\1\1\x11\0", 1), "refused"),
    "jpeg: a second picture behind the first": Hostile(
        lambda: jpeg_with(b"", 0) + packed(noise(512), "JPEG"), "answered"
    ),
    "jpeg: no height": Hostile(
        lambda: (lambda d, at: d[: at + 5] + b"\0\0" + d[at + 7 :])(d := jpeg_with(b"", 0), d.index(b"\xff\xc0")),
        "refused",
    ),
    "jpeg: cut": Hostile(lambda: packed(noise(1024), "JPEG")[:-20_000], "damaged"),
    "png: 40,000 chunks": Hostile(lambda: png(64, 64, 8, chunk(b"teXt", b"") * 40_000), "refused"),
    "png: 30,000 chunks": Hostile(lambda: png(64, 64, 8, chunk(b"teXt", b"") * 30_000), "answered"),
    "png: a text of 16 MB": Hostile(
        lambda: png(64, 64, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))), "answered"
    ),
    "png: a profile of 16 MB": Hostile(
        lambda: png(64, 64, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24)))), "answered"
    ),
    "png: 9,000² of one bit": Hostile(lambda: png(9000, 9000, 1), "refused"),
    "png: 20,000² of one bit": Hostile(lambda: png(20_000, 20_000, 1), "refused"),
    "png: a header of 65,500²": Hostile(lambda: png(65_500, 65_500, 1, rows=b""), "refused"),
    "png: 16 bits": Hostile(lambda: png(2000, 2000, 16), "answered"),
    "apng: 10,000 frames": Hostile(lambda: apng(10_000), "answered"),
    "gif: 10,000 frames": Hostile(lambda: gif(10_000), "answered"),
    "webp: 500 frames": Hostile(lambda: webp_animation(500), "answered"),
    "webp: 40,000 chunks": Hostile(lambda: packed(noise(64), "WEBP") + b"ABCD\0\0\0\0" * 40_000, "refused"),
    "bmp: runs of a pixel": Hostile(lambda: bmp_runs(1000), "answered"),
    "jpeg 2000: 10,000 boxes": Hostile(lambda: boxes("JPEG2000", 10_000), "refused"),
    "jpeg 2000: 256 tiles": Hostile(lambda: packed(noise(512), "JPEG2000", tile_size=(32, 32)), "answered"),
    "jpeg 2000: what takes long": Hostile(lambda: packed(noise(1400), "JPEG2000"), "answered"),
    "avif: 10,000 boxes": Hostile(lambda: boxes("AVIF", 10_000), "refused"),
}  # fmt: skip
if find_spec("pydicom"):
    KINDS |= {
        "dicom: 20,000 elements": Hostile(lambda: dicom(elements=20_000), "answered"),
        "dicom: a frame in 50 fragments": Hostile(lambda: dicom(fragments=50), "answered"),
    }
