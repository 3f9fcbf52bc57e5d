"""PNGs: every kind of sample by its value, and no chunk beside the picture that decides whether it is shown."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.io import png_file
from models.io.decode import decode, inspect
from models.io.samples import Choice, Depth, ImageError, ImageTooLarge, UnsupportedImage
from tests.models.io import profiles
from tests.models.io.drawn import PHOTO, packed, tiff

RNG = np.random.default_rng(0)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN = packed(Image.fromarray(PHOTO), "PNG")


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)
    )


def png(samples: np.ndarray, color: int, depth: int, *chunks: bytes) -> bytes:
    """Samples [H, W] or [H, W, C] as they are counted; fewer than 8 bits are packed, the first one highest."""
    height, width = samples.shape[:2]
    if depth == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        rows = samples.astype(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
        rows = np.packbits(bits, axis=1)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return SIGNATURE + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def behind_header(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grays_by_value(depth: int) -> None:
    values = RNG.integers(0, 2**depth, (9, 13))
    values[0, :2] = 0, 1
    shown = decode(png(values, 0, depth))
    assert (shown.image == (values * 255 // (2**depth - 1))[..., None]).all()
    assert shown.valid is None
    clear = decode(png(values, 0, depth, chunk(b"tRNS", struct.pack(">H", 1))))
    assert clear.valid is not None
    assert (clear.valid == (values != 1)).all()
    assert (clear.image[values == 1] == 255).all()
    gray_alpha = np.stack([values * 255 // (2**depth - 1), np.where(values == 0, 0, 255)], -1)
    assert (decode(png(gray_alpha, 4, 8)).valid == (values != 0)).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes(depth: int) -> None:
    indices, colors = RNG.integers(0, 2**depth, (9, 13)), RNG.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    indices[0, :2] = 0, 1
    palette = chunk(b"PLTE", colors.tobytes())
    assert (decode(png(indices, 3, depth, palette)).image == colors[indices]).all()
    clear = decode(png(indices, 3, depth, palette, chunk(b"tRNS", b"\0\x80")))
    assert (clear.valid == (indices != 0)).all()
    half = np.abs(clear.image[indices == 1].astype(int) - (colors[1] * (128 / 255) + 127))
    assert half.max() <= 1


def test_sixteen_bits_by_value() -> None:
    values = RNG.integers(0, 65536, (9, 13, 3))
    by_hand = np.rint(values / 257)
    assert np.abs(decode(png(values, 2, 16), depth="full").image - by_hand).max() <= 1
    assert np.abs(decode(png(values[..., 0], 0, 16), depth="full").image - by_hand[..., :1]).max() <= 1
    values[:4] = (7, 8, 9)
    clear = decode(png(values, 2, 16, chunk(b"tRNS", struct.pack(">HHH", 7, 8, 9))), depth="full")
    assert clear.valid is not None
    assert not clear.valid[:4].any()
    assert clear.valid[4:].all()
    values[4, 4] = (7, 8, 10)  # differs in the low byte alone
    assert decode(png(values, 2, 16, chunk(b"tRNS", struct.pack(">HHH", 7, 8, 9)))).valid[4, 4]


def test_sixteen_bits_are_stretched_by_what_is_seen() -> None:
    values = np.full((20, 20, 4), 65535)
    values[..., :3] = np.linspace(1000, 3000, 400).reshape(20, 20, 1)
    values[:10, :, 3] = 0
    values[:10, :, :3] = 0  # what lies below is black
    shown = decode(png(values, 6, 16), depth="minmax")
    assert shown.valid is not None
    assert not shown.valid[:10].any()
    assert "2002" in (shown.depth_rule or "")
    assert (shown.image[:10] == 255).all()
    gray = decode(png(values[..., [0, 3]], 4, 16), depth="minmax")
    assert (gray.image == shown.image).all()


@pytest.mark.parametrize("depth", ["percentile", "minmax", "full"])
def test_sixteen_bits_take_their_profile_before_the_stretch_in_png_as_in_tiff(depth: Depth) -> None:
    eight = PHOTO // 2 + 40
    values, profile = eight.astype(np.uint16) * 257, profiles.rgb()
    as_png = decode(png(values, 2, 16, chunk(b"iCCP", b"wide\0\0" + zlib.compress(profile))), depth=depth)
    as_tiff = decode(tiff(values, photometric="rgb", iccprofile=profile), depth=depth)
    assert (as_png.image == as_tiff.image).all()
    colors = profiles.shown(eight).astype(float)
    low, high = {"percentile": np.percentile(colors, (2, 98)), "minmax": (colors.min(), colors.max())}.get(
        depth, (0, 255)
    )
    want = np.clip((colors - low) * (255 / (high - low)), 0, 255)
    assert np.abs(as_png.image - want).max() <= 5
    assert (as_png.depth_rule or "").startswith("by the color profile" if depth != "full" else "full")


@pytest.mark.parametrize("depth", [8, 16])
def test_colors_are_managed(depth: int) -> None:
    packed_profile = chunk(b"iCCP", b"wide\0\0" + zlib.compress(profiles.rgb()))
    values = PHOTO.astype(int) * (257 if depth == 16 else 1)
    shown = decode(png(values, 2, depth, packed_profile), depth="full").image
    assert np.abs(shown.astype(int) - profiles.shown(PHOTO)).max() <= 2
    gray = chunk(b"iCCP", b"flat\0\0" + zlib.compress(profiles.gray(1.0)))
    shown = decode(png(values[..., 0], 0, depth, gray), depth="full").image
    want = profiles.shown(np.repeat(PHOTO[..., :1], 3, 2), profiles.SRGB, 1.0)
    assert np.abs(shown.astype(int) - want).max() <= 2


def cicp(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full_range]))


def gama(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chrm(primaries: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", 31270, 32900, *(round(v * 1e5) for v in primaries)))


P3 = profiles.as_srgb(profiles.srgb_to_light(PHOTO), profiles.DISPLAY_P3)
LINEAR = profiles.as_srgb(PHOTO / 255, profiles.BT_709)
LINEAR_P3 = profiles.as_srgb(PHOTO / 255, profiles.DISPLAY_P3)
ICC = chunk(b"iCCP", b"wide\0\0" + zlib.compress(profiles.rgb()))
SRGB = chunk(b"sRGB", b"\0")
STATED = {
    "code points": (cicp(12, 13), P3),
    "code points before a profile": (cicp(12, 13) + ICC, P3),
    "code points before sRGB and gamma": (SRGB + gama(100000) + cicp(12, 13), P3),
    "code points of sRGB before a profile": (cicp(1, 13) + ICC, PHOTO),
    "code points of narrow range": (cicp(12, 13, full_range=0), PHOTO),
    "code points with a matrix": (cicp(12, 13, matrix=9), PHOTO),
    "code points that leave the curve open, and gamma": (cicp(9, 2) + gama(100000), LINEAR),
    "code points of another sum": (chunk(b"cICP", bytes([12, 13, 0, 1]), crc=1), PHOTO),
    "a profile before gamma": (ICC + gama(100000), profiles.shown(PHOTO)),
    "a profile beside HDR": (cicp(9, 16) + ICC, profiles.shown(PHOTO)),
    "sRGB before gamma": (SRGB + gama(100000), PHOTO),
    "gamma": (gama(100000), LINEAR),
    "gamma and chromaticities": (gama(100000) + chrm(profiles.DISPLAY_P3), LINEAR_P3),
    "sRGB's gamma and chromaticities": (gama(45455) + chrm(profiles.BT_709), PHOTO),
    "chromaticities alone": (chrm(profiles.DISPLAY_P3), PHOTO),
    "gamma and chromaticities of no sense": (gama(100000) + chunk(b"cHRM", b"\xff" * 32), PHOTO),
}


@pytest.mark.parametrize("what", STATED)
def test_colors_stated_without_a_profile(what: str) -> None:
    chunks, want = STATED[what]
    shown = decode(png(PHOTO, 2, 8, chunks))
    assert np.abs(shown.image.astype(int) - want).max() <= 2
    assert not shown.warnings
    assert (decode(PLAIN[:-12] + chunks + PLAIN[-12:]).image == PHOTO).all()  # behind the pixels: too late
    if want is PHOTO:
        assert (shown.image == PHOTO).all()


def test_gamma_of_other_kinds_of_samples() -> None:
    want = profiles.as_srgb(np.repeat(PHOTO[..., :1], 3, 2) / 255, profiles.BT_709)
    for samples, color, depth in (
        (PHOTO[..., 0], 0, 8),
        (PHOTO[..., 0].astype(int) * 257, 0, 16),
        (PHOTO[..., 0], 3, 8),
    ):
        palette = chunk(b"PLTE", np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()) if color == 3 else b""
        shown = decode(png(samples, color, depth, gama(100000), palette), depth="full")
        assert np.abs(shown.image.astype(int) - want).max() <= 2
    deep = decode(png(PHOTO.astype(int) * 257, 2, 16, cicp(12, 13)), depth="full")
    assert np.abs(deep.image.astype(int) - P3).max() <= 2
    clear = decode(png(np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255)]), 6, 8, gama(100000)))
    assert np.abs(clear.image.astype(int) - LINEAR).max() <= 2


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_named_and_left(transfer: int, name: str) -> None:
    shown = decode(png(PHOTO, 2, 8, cicp(9, transfer)))
    assert (shown.image == PHOTO).all()
    assert shown.warnings == (f"its colors are HDR ({name}), which is not converted",)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_turn_of_its_exif_chunk(turn: int) -> None:
    exif = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, turn, 0) + bytes(4)
    data = behind_header(PLAIN, chunk(b"eXIf", exif))
    shown = decode(data)
    assert shown.orientation == turn
    assert inspect(data).size == shown.image.shape[:2]
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}[turn]
    assert (shown.image[0, 0] == PHOTO[corner]).all()


BOMB = zlib.compress(bytes(30 * 2**20), 9)
ODD = {
    "compressed text of 30 MiB": chunk(b"zTXt", b"a\0\0" + BOMB),
    "international text of 30 MiB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "text of 2 MB": chunk(b"tEXt", b"a\0" + bytes(2_000_000)),
    "a profile of 30 MiB": chunk(b"iCCP", b"a\0\0" + BOMB),
    "a profile that is none": chunk(b"iCCP", b"a\0\0" + zlib.compress(b"no profile")),
    "a profile that cannot be inflated": chunk(b"iCCP", b"a\0\0hello"),
    "an empty profile": chunk(b"iCCP", b""),
    "a profile of another sum": chunk(b"iCCP", b"a\0\0" + zlib.compress(profiles.rgb()), crc=1),
    "text of another sum": chunk(b"tEXt", b"a\0b", crc=7),
    "a time of another sum": chunk(b"tIME", bytes(7), crc=7),
    "physical size of 3 bytes": chunk(b"pHYs", b"abc"),
    "gamma of nothing": chunk(b"gAMA", bytes(4)),
    "gamma twice": chunk(b"gAMA", struct.pack(">I", 45455)) * 2,
    "significant bits of no sense": chunk(b"sBIT", b"\xff\xff\xff\xff\xff"),
    "a background of no sense": chunk(b"bKGD", b"\1"),
    "chromaticities of no sense": chunk(b"cHRM", b"\xff" * 32),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "a short animation control": chunk(b"acTL", b"\0"),
    "a frame of another size": chunk(b"acTL", struct.pack(">II", 2, 0))
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 9, 9999, 9999, 7, 7, 1, 1, 0, 0)),
    "exif of no sense": chunk(b"eXIf", b"hello"),
    "exif of another sum": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0", crc=3),
    "an unknown chunk": chunk(b"prVt", bytes(99)),
    "a chunk of bytes that are no letters": chunk(b"\1\2\3\4", bytes(9)),
    "a palette beside colors": chunk(b"PLTE", b"ab"),
    "a histogram without a palette": chunk(b"hIST", b"\0\1"),
    "transparency of another sum": chunk(b"tRNS", bytes(6), crc=9),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_is_not_the_picture_does_not_decide(what: str) -> None:
    shown = decode(behind_header(PLAIN, ODD[what]))
    assert (shown.image == PHOTO).all()
    assert shown.valid is None
    end = PLAIN[:-12] + ODD[what] + PLAIN[-12:]
    assert (decode(end).image == PHOTO).all()


def test_frames_of_an_animation_are_left_out() -> None:
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    data = packed(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=9)
    assert b"fdAT" in data
    assert (decode(data).image == PHOTO).all()


def test_what_stands_behind_the_picture() -> None:
    for data in (PLAIN + b"more", PLAIN[:-12], PLAIN[:-5], PLAIN[:-12] + b"\0\0\xff\xfftEXt"):
        assert (decode(data).image == PHOTO).all()


def test_damage_in_the_picture_is_damage() -> None:
    for length in range(8, len(PLAIN) - 12 - 5, len(PLAIN) // 30):
        with pytest.raises(ImageError):
            decode(PLAIN[:length])
    flipped = bytearray(PLAIN)
    flipped[len(PLAIN) // 2] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(flipped))
    head = bytearray(PLAIN)
    head[30] ^= 1  # its sum
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(head))
    for depth, color in ((3, 0), (16, 3), (8, 5)):
        head = struct.pack(">IIBBBBB", 36, 24, depth, color, 0, 0, 0)
        with pytest.raises(ImageError, match="does not exist"):
            decode(SIGNATURE + chunk(b"IHDR", head) + PLAIN[33:])
    with pytest.raises(ImageError, match="damaged"):
        decode(png(RNG.integers(0, 4, (3, 3)), 3, 8))  # a palette's indices without the palette


def test_apples_kind_and_unknown_kinds_are_named() -> None:
    with pytest.raises(UnsupportedImage, match="CgBI"):
        decode(SIGNATURE + chunk(b"CgBI", bytes(4)) + PLAIN[8:])
    with pytest.raises(UnsupportedImage, match="ABCD"):
        decode(behind_header(PLAIN, chunk(b"ABCD", b"")))


def test_limits() -> None:
    with pytest.raises(ImageTooLarge, match="Mpx"):
        inspect(_head(8, 2, 9000, 9000))


def _head(depth: int, color: int, height: int, width: int) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))


def test_bands() -> None:
    assert (decode(PLAIN, bands=(3, 1, 1)).image == PHOTO[..., [2, 0, 0]]).all()
    with pytest.raises(ImageError, match="band 1 alone"):
        inspect(packed(Image.new("LA", (4, 4)), "PNG"), choice=Choice(bands=(2,)))


def test_no_copy_is_made_where_nothing_is_left_out() -> None:
    file = png_file._read(PLAIN)
    assert sum(map(len, file.chunks)) == len(PLAIN) - 8 - 12
