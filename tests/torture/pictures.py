"""Tests 1 to 3: files that look small and are large, odd files of every kind, and pictures that lie on their side.

All of them are drawn here. Sizes are harmless: a guard that refuses a little too much refuses far too much.

Knows nothing of how files are read.
"""

import asyncio
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image, ImageOps

from models.io.encode import encode
from tests.models.io import profiles
from tests.models.io.drawn import directory_file, packed, tiff
from tests.tiny import bands
from tests.torture.client import Answer, together
from tests.torture.process import Server, serving
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory, probing

PHOTO = bands(60, 100)
PNG = encode(PHOTO, "png")
JPEG = encode(PHOTO, "jpeg", 95)
REFUSALS = (400, 413, 415, 422)
_REFUSE_MS, _RSS_MB = 50.0, 20.0
_ODD_MS = 2000.0


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of PNG's."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def one_bit(side: int, *, rows: bool = True) -> bytes:
    """A black PNG of side × side at one bit, with its rows or without."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side if rows else 1)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def _refused(server: Server, found: Found, name: str, data: bytes) -> None:
    """A file is refused three times: fast, and without memory."""
    for _ in range(3):
        server.forget_peak()
        before, all_before = server.peak_mb(), server.rss_mb()
        with memory(server, 0.01) as held:
            answer = await server.ask("POST", "/segment", data)
        rise = max(server.peak_mb() - before, held.rise_mb, server.rss_mb() - all_before)
        quick = answer.seconds * 1000 < _REFUSE_MS
        if answer.status in REFUSALS and quick and rise < _RSS_MB:
            break  # the machine is shared: the best of three
    found.figure(f"{name} {answer.status} in {answer.seconds * 1000:.0f} ms, + {max(rise, 0):.0f} MB")
    found.must(answer.status in REFUSALS and answer.is_problem, f"{name}: {answer.status} {answer.body[:200]!r}")
    found.must(quick, f"{name}: refused after {answer.seconds * 1000:.0f} ms")
    found.must(rise < _RSS_MB, f"{name}: {rise:.0f} MB were held for it")


async def _met_every_kind(server: Server) -> None:
    """Libraries are loaded when the first file of theirs comes; that is not what is measured."""
    for data in (PNG, JPEG, tiff(PHOTO, compression="zlib", photometric="rgb")):
        for _ in range(3):
            assert (await server.ask("POST", "/segment?format=png", data)).status == 200


@torture("1", "1-bit PNGs of 9000², 20 000² and 65 500²: refused in 50 ms, + < 20 MB")
async def one_bit_pngs(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state")) as server:
        await _met_every_kind(server)
        for side, rows in ((9000, True), (20_000, True), (65_500, False)):
            await _refused(server, found, f"{side}²", one_bit(side, rows=rows))


def segments() -> Iterator[tuple[str, bytes]]:
    """TIFFs whose header says little of what decoding them takes; none takes much."""
    rows = 32_768
    each = {256: 1, 257: rows, 258: 8, 259: 8, 262: 1, 277: 1, 278: 1}
    one = zlib.compress(b"\0")
    places = tuple(8 + len(one) * i for i in range(rows))
    yield "many tiny segments", directory_file({**each, 273: places, 279: (len(one),) * rows}, one * rows)
    large = zlib.compress(bytes(4096 * 4096), 9)
    tile = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 4096, 323: 4096}
    yield "a tile larger than the picture", directory_file({**tile, 324: 8, 325: len(large)}, large)
    strip = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 278: 16}
    yield "a strip that unpacks to more than its rows", directory_file({**strip, 273: 8, 279: len(large)}, large)
    inside = packed(Image.new("L", (4096, 4096)), "JPEG")
    of_jpeg = {256: 16, 257: 16, 258: 8, 259: 7, 262: 1, 277: 1, 278: 16}
    yield "a JPEG inside that is larger than its strip", directory_file(of_jpeg, inside)


@torture("D", "TIFFs of many tiny segments, of segments larger than the picture: refused in 50 ms, + < 20 MB")
async def segments_refused(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state")) as server:
        await _met_every_kind(server)
        for name, data in segments():
            await _refused(server, found, name, data)


def odd() -> Iterator[tuple[str, bytes]]:
    """Odd files by what is odd about them: any of them may be read or refused, and nothing else."""
    head, rest = PNG[:33], PNG[33:]
    for kind, body in ((b"zTXt", b"k\0\0"), (b"iCCP", b"p\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        yield f"PNG with a large {kind.decode()}", head + chunk(kind, body + zlib.compress(bytes(8_000_000), 9)) + rest
    small = Image.new("P", (4, 4))
    frames = [Image.new("P", (4, 4), i % 2) for i in range(2000)]
    yield "GIF of 2000 frames", packed(small, "GIF", save_all=True, append_images=frames)
    yield "APNG of 2000 frames", packed(small, "PNG", save_all=True, append_images=frames)
    moving = [Image.new("RGB", (4, 4), (i % 2, 0, 0)) for i in range(200)]
    yield "WebP of 200 frames", packed(moving[0], "WEBP", save_all=True, append_images=moving)
    yield "TIFF of 100 000 directories", many_directories(100_000)
    yield "TIFF whose directory is its own next", many_directories(1, loop=True)
    plain = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4}
    yield "TIFF 2³¹ wide", directory_file({**plain, 256: 2**31}, bytes(16))
    yield "TIFF whose tiles have no size", directory_file({256: 4, 257: 4, 258: 8, 262: 1, 322: 0, 323: 0}, bytes(16))
    yield "TIFF of 2³⁰ tiles", directory_file({256: 2**19, 257: 2**19, 258: 8, 262: 1, 322: 16, 323: 16}, bytes(16))
    yield "FITS", b"SIMPLE  =                    T" + b" " * 2850
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "PDF", b"%PDF-1.7\n1 0 obj << >> endobj\ntrailer << >>\n"
    yield "JPEG that is a ZIP as well", JPEG + b"PK\3\4" + bytes(60)
    yield "GIF that is a script as well", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"
    yield "one byte", b"\xff"
    for i in range(1, 21):
        for kind, whole in (("PNG", PNG), ("JPEG", JPEG), ("TIFF", tiff(PHOTO)), ("WebP", webp(PHOTO))):
            yield f"{kind} cut at {i}/21", whole[: len(whole) * i // 21]
    yield "1×1", packed(Image.new("RGB", (1, 1)), "PNG")
    yield "1×20 000", packed(Image.new("L", (1, 20_000)), "PNG")
    yield "20 000×1", packed(Image.new("L", (20_000, 1)), "PNG")
    yield "PNG with a malformed eXIf", head + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff") + rest
    photo = Image.fromarray(PHOTO)
    yield "CMYK JPEG", packed(photo.convert("CMYK"), "JPEG")
    yield "JPEG with Adobe's marker cut", JPEG[:2] + b"\xff\xee\0\x08Adobe\0" + JPEG[2:]
    yield "JPEG with a profile", packed(photo, "JPEG", icc_profile=profiles.rgb())
    yield "PNG with a profile of noise", packed(photo, "PNG", icc_profile=bytes(range(256)))
    yield "palette with transparency", packed(photo.quantize(8), "PNG", transparency=b"\0\x7f")
    yield "16-bit PNG", packed(Image.fromarray(np.arange(6000, dtype=np.uint16).reshape(60, 100) * 10), "PNG")
    floats = np.linspace(0, 1, 6000, dtype=np.float32).reshape(60, 100)
    for name, value in (("NaN", np.nan), ("infinity", np.inf), ("−infinity", -np.inf)):
        holed = floats.copy()
        holed[10:20] = value
        yield f"float TIFF with {name}", tiff(holed, photometric="minisblack")
        yield f"float TIFF of {name} alone", tiff(np.full_like(floats, value), photometric="minisblack")
    yield "TIFF with no-data", tiff(PHOTO[..., 0], extratags=[(42113, 2, 0, "10", True)], photometric="minisblack")
    yield "TIFF whose no-data is no number", tiff(PHOTO[..., 0], extratags=[(42113, 2, 0, "x" * 99, True)])


def many_directories(count: int, *, loop: bool = False) -> bytes:
    """A TIFF of so many one-pixel pages; or one whose page says that it is its own next."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)]  # fmt: skip
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(body) + 4
    after = [10 if loop else 10 + size * (i + 1) for i in range(count)]
    if not loop:
        after[-1] = 0
    return b"II*\0\x0a\0\0\0\0\0" + b"".join(body + struct.pack("<I", at) for at in after)


def webp(photo: np.ndarray) -> bytes:
    """A lossy WebP."""
    return packed(Image.fromarray(photo), "WEBP")


@torture("2", "odd files of every kind: an answer or a refusal in 2 s, memory flat, nobody else's answer changes")
async def odd_files(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state")) as server:
        await _met_every_kind(server)
        before = (await server.ask("POST", "/segment?format=png", PNG)).body
        files = list(odd())

        async def one(i: int) -> None:
            name, data = files[i]
            answer = await server.ask("POST", "/segment?format=png", data)
            sound = answer.status == 200 or (answer.status in REFUSALS and answer.is_problem)
            found.must(sound, f"{name}: {answer.status} {answer.body[:160]!r}")
            if answer.seconds * 1000 > _ODD_MS:  # once more, alone
                answer = await server.ask("POST", "/segment?format=png", data)
            found.must(answer.seconds * 1000 < _ODD_MS, f"{name}: {answer.seconds:.2f} s")

        await together(len(files), one, at_once=2)
        first = server.rss_mb()
        await together(len(files), one, at_once=2)
        after = await server.ask("POST", "/segment?format=png", PNG)
        found.must(after.body == before, "the same photo has another answer afterwards")
        grown = server.rss_mb() - first
        found.must(grown < 20, f"memory grew by {grown:.0f} MB when all came again")
        empty = await server.ask("POST", "/segment", b"")
        found.must(empty.status == 400, f"no bytes at all: {empty.status}")
        found.figure(f"{len(files) + 1} files", f"memory {grown:+.0f} MB when they come again")


def turned(orientation: int) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Files whose picture lies as EXIF's number says, and the picture as a viewer shows it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(PHOTO)
    marked = io.BytesIO()
    photo.save(marked, "PNG", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(marked.getvalue()))))
    yield "PNG", marked.getvalue(), shown
    yield "JPEG", packed(photo, "JPEG", quality=100, subsampling=0, exif=exif), shown
    yield "WebP", packed(photo, "WEBP", lossless=True, exif=exif), shown
    by_pillow = io.BytesIO()
    photo.save(by_pillow, "TIFF", tiffinfo={274: orientation})
    yield "TIFF by Pillow", by_pillow.getvalue(), shown
    by_tifffile = io.BytesIO()
    tifffile.imwrite(by_tifffile, PHOTO, photometric="rgb", extratags=[(274, 3, 1, orientation, True)], metadata=None)
    yield "TIFF by tifffile", by_tifffile.getvalue(), shown


@torture("3", "all 8 orientations in JPEG, PNG, WebP and TIFF of two writers: turned once, all alike")
async def orientations(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state")) as server:

        async def labels(data: bytes) -> np.ndarray | Answer:
            answer = await server.ask("POST", "/segment?format=npy", data)
            return np.load(io.BytesIO(answer.body)) if answer.status == 200 else answer

        for orientation in range(1, 9):
            for name, data, shown in turned(orientation):
                want, got = await labels(encode(np.ascontiguousarray(shown), "png")), await labels(data)
                same = isinstance(got, np.ndarray) and isinstance(want, np.ndarray) and got.shape == want.shape
                agree = same and float((got == want).mean()) >= (0.98 if name == "JPEG" else 1.0)
                found.must(bool(agree), f"{name}, orientation {orientation}: not the labels of the upright picture")


def heavy() -> Iterator[tuple[str, bytes]]:
    """Files within every limit that take long to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    large = np.tile(noise, (3, 4, 1))
    yield "PNG of 49 Mpx", packed(Image.new("RGB", (7000, 7000)), "PNG")
    yield "JPEG 2000 of 4 Mpx", packed(Image.fromarray(np.tile(noise, (2, 2, 1))), "JPEG2000")
    yield "TIFF of 16 384 strips", tiff(np.zeros((16_384, 64), np.uint8), rowsperstrip=1, compression="zlib")
    yield "TIFF of 100 000 directories", many_directories(100_000)
    yield "WebP of 12 Mpx", packed(Image.fromarray(large), "WEBP", lossless=True, method=0)


@torture("C", "another client's photo beside one heavy file: at most 2 × its lone time + 200 ms")
async def beside_heavy_files(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), cache_bytes=0) as server:
        await _met_every_kind(server)
        with probing(server.port, "POST", "/segment?format=png", PNG, every_s=0.01) as alone:
            await asyncio.sleep(3.0)
        lone = max(alone.median_ms, 1.0)
        for name, data in heavy():
            with probing(server.port, "POST", "/segment?format=png", PNG, every_s=0.01, source="127.0.0.3") as beside:
                answer = await server.ask("POST", "/segment?format=png", data)
            worst = max(beside.seconds) * 1000
            found.figure(f"{name} ({answer.status}, {answer.seconds:.1f} s): worst {worst:.0f} ms")
            found.must(beside.only("200"), f"{name}: the other client saw {dict(beside.statuses)}")
            found.must(worst <= 2 * lone + 200, f"{name}: a photo that takes {lone:.1f} ms alone took {worst:.0f} ms")
