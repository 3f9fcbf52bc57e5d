"""JPEGs: Pillow's pixels in one pass, whatever the process; a header that may be read in two ways is refused."""

import io
import struct

import numpy as np
import pytest
from imagecodecs import jpeg8_encode, jpegls_encode
from PIL import Image, ImageOps

from models.io import jpeg_header
from models.io.decode import decode, inspect
from models.io.samples import Choice, ImageError, ImageTooLarge, UnsupportedImage
from tests.models.io import profiles
from tests.models.io.drawn import packed, textured


def as_pillow_sees_it(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


WRITERS = (
    {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"optimize": True},
    {"restart_marker_rows": 1}, {"restart_marker_blocks": 3, "progressive": True}, {"comment": b"a comment"},
)  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (64, 48), (97, 33), (360, 480)])
@pytest.mark.parametrize("quality", [30, 90, 100])
def test_jpegs_have_pillows_pixels(size: tuple[int, int], quality: int) -> None:
    photo = textured(*size)
    for options in WRITERS:
        for mode in ("RGB", "L", "CMYK"):
            data = packed(photo.convert(mode), "JPEG", quality=quality, **options)
            assert inspect(data).size == size
            assert (decode(data).image == as_pillow_sees_it(data)).all()
    for subsampling in ("411", "440"):
        data = bytes(jpeg8_encode(np.asarray(photo), level=quality, subsampling=subsampling))
        assert (decode(data).image == as_pillow_sees_it(data)).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_turn_of_exif_and_of_xmp(turn: int) -> None:
    photo, exif = textured(24, 36), Image.Exif()
    exif[0x0112], exif[0x010F] = turn, "maker"
    xmp = f'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:tiff="a" tiff:Orientation="{turn}"/>'.encode()
    for data in (packed(photo, "JPEG", exif=exif), packed(photo, "JPEG", xmp=xmp)):
        shown = decode(data)
        assert (shown.image == as_pillow_sees_it(data)).all()
        assert shown.orientation == turn
        assert inspect(data).size == shown.image.shape[:2]


def test_metadata_that_cannot_be_read_ask_for_no_turn() -> None:
    plain = packed(textured(24, 36), "JPEG")
    for body in (
        b"Exif\0\0II*?",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0",
        b"",
    ):
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + plain[2:]
        assert (decode(data).image == decode(plain).image).all()


def test_what_stands_around_the_picture_changes_nothing() -> None:
    photo = textured(24, 36)
    plain = packed(photo, "JPEG")
    want = as_pillow_sees_it(plain)
    odd = {
        "two pictures": packed(photo, "MPO", save_all=True, append_images=[textured(48, 72)]),
        "zeros behind": plain + b"\0\0",
        "a video behind": plain + b"\0\0\0\x18ftypmp42" + bytes(500),
        "a picture behind": plain + packed(textured(48, 72), "JPEG"),
        "fill bytes": plain[:2] + b"\xff\xff\xff" + plain[2:],
        "lost bytes between segments": plain[:20] + b"\0\x12" + plain[20:],
    }
    for what, data in odd.items():
        assert (decode(data).image == want).all(), what
    inside = packed(photo, "JPEG", keep_rgb=True)
    assert (decode(inside).image == as_pillow_sees_it(inside)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", WRITERS)
def test_a_whole_picture_without_its_end_marker_is_shown_and_a_cut_one_never(options: dict, mode: str) -> None:
    whole = packed(textured(40, 56).convert(mode), "JPEG", **options)
    want = decode(whole).image
    assert (decode(whole[:-2]).image == want).all()
    assert (decode(whole[:-1]).image == want).all()
    assert (decode(whole[:-2] + b"\0" * 9).image == want).all()
    for length in [*range(2, len(whole) - 40, 13), *range(len(whole) - 40, len(whole) - 2)]:
        with pytest.raises(ImageError):
            decode(whole[:length])


def test_a_progressive_picture_without_its_last_scans_is_cut() -> None:
    whole = packed(textured(64, 64), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[:last])
    tables = whole.rindex(b"\xff\xc4")
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[:tables])


def frame(kind: int, height: int, width: int) -> bytes:
    return bytes((0xFF, kind)) + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0"


def test_a_header_that_says_two_things_is_refused() -> None:
    plain = packed(textured(16, 16).convert("L"), "JPEG")
    at, scan = plain.index(b"\xff\xc0"), plain.index(b"\xff\xda")
    hidden = b"\xff\xe5" + struct.pack(">H", 2 + 13) + frame(0xC0, 8, 8)
    assert decode(plain[:at] + hidden + plain[at:]).image.shape == (16, 16, 3)  # inside a segment nobody reads
    for twice in (
        plain[:at] + frame(0xC0, 60000, 60000) + plain[at:],
        plain[:scan] + frame(0xC0, 8, 8) + plain[scan:],
        plain[:scan] + frame(0xC2, 16, 16) + plain[scan:],
        plain[:at] + b"\xff\xd8" + plain[at:],
        plain[:-2] + frame(0xC0, 60000, 60000) + plain[-2:],
        plain[:at] + b"\xff\xc0\0\x0c" + plain[at + 4 :],
    ):
        with pytest.raises(ImageError, match="damaged"):
            decode(twice)
    with pytest.raises(ImageError, match="pixels"):
        decode(plain[:at] + plain[scan:])


def test_scans_without_end_are_refused() -> None:
    data = packed(textured(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        decode(data[:-2] + data[last:-2] * 200 + data[-2:])


def test_damage_is_named() -> None:
    data = bytearray(packed(textured(64, 64), "JPEG"))
    tables = data.index(b"\xff\xc4")
    data[tables + 5 : tables + 21] = b"\xff" * 16  # a Huffman table that cannot be
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data))
    for short in (b"\xff\xd8\xff\xd9", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0"):
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(short)


def test_a_jpeg_too_large_is_refused_from_its_header() -> None:
    data = bytearray(packed(textured(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(ImageTooLarge, match="3600"):
        inspect(bytes(data))
    data[at : at + 4] = struct.pack(">HH", 40000, 1)
    with pytest.raises(ImageTooLarge, match="longest side"):
        inspect(bytes(data))
    data[at : at + 4] = struct.pack(">HH", 0, 16)
    with pytest.raises(ImageError, match="16×0"):
        inspect(bytes(data))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossless_and_deep_jpegs_keep_every_sample(bits: int, mode: str) -> None:
    photo = np.asarray(textured(24, 36).convert(mode))
    samples = photo if bits == 8 else (photo.astype(np.uint16) << (bits - 8)) + 3
    lossless = bytes(jpeg8_encode(samples, lossless=True, bitspersample=bits))
    ls = bytes(jpegls_encode(samples))
    for data in (lossless, ls) if bits != 12 else (lossless,):
        shown = decode(data, depth="full")
        assert np.abs(shown.image.astype(int) - photo.reshape(24, 36, -1)).max() <= 1
        assert (shown.depth_rule is None) == (bits == 8)


def test_twelve_bits_fill_the_range() -> None:
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    shown = decode(bytes(jpeg8_encode(ramp, bitspersample=12, level=100)), depth="full").image
    assert np.abs(shown[..., 0] - ramp / 4095 * 255).max() < 2


def test_what_no_codec_reads_is_named() -> None:
    plain = packed(textured(16, 16), "JPEG")
    at = plain.index(b"\xff\xc0")
    for kind in (0xC5, 0xCB, 0xCD):
        with pytest.raises(UnsupportedImage, match="hierarchical or lossless arithmetic"):
            decode(plain[: at + 1] + bytes((kind,)) + plain[at + 2 :])


def test_colors_are_managed() -> None:
    photo = textured(40, 56)
    plain = decode(packed(photo, "JPEG", quality=95, subsampling=0)).image
    wide = decode(packed(photo, "JPEG", quality=95, subsampling=0, icc_profile=profiles.rgb()))
    assert np.abs(wide.image.astype(int) - profiles.shown(plain)).max() <= 2
    srgb = decode(packed(photo, "JPEG", quality=95, subsampling=0, icc_profile=profiles.srgb()))
    assert (srgb.image == plain).all()
    gray = packed(photo.convert("L"), "JPEG", icc_profile=profiles.gray(1.0))
    want = profiles.shown(as_pillow_sees_it(gray), profiles.SRGB, 1.0)
    assert np.abs(decode(gray).image.astype(int) - want).max() <= 2
    wrong = decode(packed(photo, "JPEG", quality=95, subsampling=0, icc_profile=b"x" * 70000))  # of two segments
    assert (wrong.image == plain).all()
    assert "profile" in wrong.warnings[0]


def test_inks_go_through_their_profile() -> None:
    from tests.models.io.test_color import inks

    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    bare = decode(packed(cyan, "JPEG", quality=100)).image[8, 8]
    managed = decode(packed(cyan, "JPEG", quality=100, icc_profile=profiles.cmyk(inks()))).image[8, 8]
    assert np.abs(bare.astype(int) - (0, 255, 255)).max() <= 3
    assert managed.min() > 90  # L 80, a -40: a pale green


def test_bands() -> None:
    data = packed(textured(24, 36), "JPEG", quality=95)
    image = decode(data).image
    assert (decode(data, bands=(3, 2, 1)).image == image[..., ::-1]).all()
    assert (decode(data, bands=(2,)).image == image[..., [1, 1, 1]]).all()
    with pytest.raises(ImageError, match="1 to 3"):
        inspect(data, choice=Choice(bands=(4,)))
    with pytest.raises(ImageError, match="band 1 alone"):
        inspect(packed(textured(24, 36).convert("L"), "JPEG"), choice=Choice(bands=(1, 2, 3)))


def test_the_header_is_read_in_no_time_that_counts() -> None:
    header = jpeg_header.read(packed(textured(24, 36), "JPEG", progressive=True))
    assert header.scans > 5
    assert header.complete
    assert header.ended
