"""Plain JPEGs: Pillow's pixels in one pass; every other one is Pillow's to judge."""

import io
import struct

import numpy as np
import pytest
from imagecodecs import jpeg8_encode
from PIL import Image, ImageOps

from models.io import jpeg
from models.io.decode import decode
from models.io.samples import ImageError, ImageTooLarge
from tests.models.io.drawn import packed, textured


def as_pillow_sees_it(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (64, 48), (97, 33), (360, 480)])
@pytest.mark.parametrize("quality", [30, 90, 100])
def test_plain_jpegs_have_pillows_pixels(size: tuple[int, int], quality: int) -> None:
    photo, exif = textured(*size), Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "maker"
    for options in (
        {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"optimize": True},
        {"restart_marker_rows": 1}, {"exif": exif}, {"comment": b"a comment", "icc_profile": b"x" * 70000},
    ):  # fmt: skip
        for picture in (photo, photo.convert("L")):
            data = packed(picture, "JPEG", quality=quality, **options)
            header = jpeg.plain_header(data)
            assert header == size
            assert (jpeg.decode(data, header) == as_pillow_sees_it(data)).all()
    for subsampling in ("411", "440"):
        data = bytes(jpeg8_encode(np.asarray(photo), level=quality, subsampling=subsampling))
        assert jpeg.plain_header(data) is not None
        assert (decode(data).image == as_pillow_sees_it(data)).all()


def test_odd_jpegs_are_left_to_pillow() -> None:
    photo = textured(24, 36)
    plain = packed(photo, "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:tiff="a" tiff:Orientation="6"/>'
    unread = b"\xff\xe1" + struct.pack(">H", 2 + 10) + b"Exif\0\0II*?"
    odd = {
        "CMYK": packed(photo.convert("CMYK"), "JPEG"),
        "RGB inside": packed(photo, "JPEG", keep_rgb=True),
        "turned": packed(photo, "JPEG", exif=turned),
        "turned by XMP": packed(photo, "JPEG", xmp=xmp),
        "two pictures": packed(photo, "MPO", save_all=True, append_images=[photo]),
        "something behind": plain + b"\0\0",
    }
    for what, data in odd.items():
        assert jpeg.plain_header(data) is None, what
        assert (decode(data).image == as_pillow_sees_it(data)).all(), what
    unreadable = plain[:2] + unread + plain[2:]
    assert jpeg.plain_header(unreadable) is None
    assert (decode(unreadable).image == as_pillow_sees_it(plain)).all()
    for data in (plain[:-2], plain[: len(plain) // 2], plain[:2] + b"\xff\xd9", b"\xff\xd8\xff\xd9", b""):
        assert jpeg.plain_header(data) is None
    assert jpeg.plain_header(plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")) is None


def test_a_damaged_plain_jpeg_is_pillows_to_judge() -> None:
    data = bytearray(packed(textured(64, 64), "JPEG"))
    tables = data.index(b"\xff\xc4")
    data[tables + 5 : tables + 21] = b"\xff" * 16  # a Huffman table that cannot be
    assert jpeg.plain_header(bytes(data)) is not None
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data))


def test_a_jpeg_too_large_is_refused_from_its_header() -> None:
    data = bytearray(packed(textured(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(ImageTooLarge, match="3600"):
        decode(bytes(data))
    data[at : at + 4] = struct.pack(">HH", 40000, 1)
    with pytest.raises(ImageTooLarge, match="longest side"):
        decode(bytes(data))
    data[at : at + 4] = struct.pack(">HH", 0, 16)
    with pytest.raises(ImageError, match=r"16×0|damaged|not an image"):
        decode(bytes(data))
