"""Bytes in every guise a person sends them in, and those that are no image."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from imagecodecs import png_encode
from PIL import Image, ImageOps

from models.io.decode import decode, inspect
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart, UnsupportedImage
from tests.models.io.drawn import PHOTO, packed, textured, tiff

MODES = {"PNG": "1 L P RGB RGBA LA", "TIFF": "1 L P RGB RGBA LA CMYK", "JPEG": "1 L RGB CMYK"}


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_to_the_pixel(kind: str) -> None:
    assert (decode(packed(Image.fromarray(PHOTO), kind)).image == PHOTO).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_back_close(kind: str) -> None:
    flat = np.full((24, 36, 3), (200, 60, 30), np.uint8)
    assert np.abs(decode(packed(Image.fromarray(flat), kind)).image.astype(int) - flat).max() < 12


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind in MODES for mode in MODES[kind].split()])
def test_every_mode_is_rgb_afterwards(kind: str, mode: str) -> None:
    image = Image.new("RGB", (12, 10), "white").convert(mode)
    got = decode(packed(image, kind)).image
    assert got.shape == (10, 12, 3)
    assert np.abs(got.astype(int) - np.asarray(image.convert("RGB"))).max() <= 6


def test_transparency_is_shown_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(packed(clear, "PNG")).image == 255).all()
    assert (decode(packed(clear, "TIFF")).image == 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_both_decoders_turn_as_a_viewer_does(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    png = packed(Image.fromarray(PHOTO), "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(png))))
    assert (decode(png).image == upright).all()
    assert (decode(tiff(PHOTO, extratags=[(274, "H", 1, turn, True)])).image == upright).all()
    jpeg = packed(Image.fromarray(PHOTO), "JPEG", exif=exif, quality=100)
    assert decode(jpeg).image.shape == upright.shape


def test_sixteen_bits_follow_the_declared_rule() -> None:
    ramp = np.linspace(1000, 3000, 24 * 36).reshape(24, 36).astype(np.uint16)
    for data in (png_encode(ramp), tiff(ramp), png_encode(np.stack([ramp] * 3, -1))):
        spread = decode(data, depth="minmax")
        assert spread.image.min() == 0
        assert spread.image.max() == 255
        assert "1000..3000" in (spread.depth_rule or "")
        assert len(np.unique(decode(data).image)) > 200  # Pillow alone leaves a handful
        assert decode(data, depth="full").image.max() == round(3000 / 65535 * 255)


def test_only_tiff_has_pages() -> None:
    with pytest.raises(ImageError, match="only TIFF"):
        decode(packed(Image.fromarray(PHOTO), "PNG"), page=1)


def test_only_tiff_has_levels() -> None:
    with pytest.raises(ImageError, match="only TIFF"):
        inspect(packed(Image.fromarray(PHOTO), "PNG"), choice=Choice(level=1))


def test_one_pixel_is_an_image() -> None:
    assert decode(packed(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).image.tolist() == [[[1, 2, 3]]]


def test_truncated_files_are_refused_at_every_length() -> None:
    whole = packed(textured(64, 64), "JPEG")
    for length in range(0, len(whole) - 2, len(whole) // 20):
        with pytest.raises(ImageError):
            decode(whole[:length])
    for data in (tiff(PHOTO, compression="zlib", photometric="rgb"), packed(Image.fromarray(PHOTO), "WEBP")):
        with pytest.raises(ImageError):
            decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ImageError),
        (b"hello, this is text", ImageError),
        (b"%PDF-1.7 ...", UnsupportedImage),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedImage),
        (b"\0\0\0\x20ftypheic" + bytes(40), ImageError),
        (b"II*\0" + bytes(60), ImageError),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), ImageError),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", UnsupportedImage),
    ],
)
def test_what_is_no_image_is_named(data: bytes, kind: type[ImageError]) -> None:
    with pytest.raises(kind) as refused:
        decode(data)
    assert len(str(refused.value)) > 20


def test_a_bomb_is_refused_from_its_header() -> None:
    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 65500, 65500, 1, 0, 0, 0, 0))
    with pytest.raises(ImageTooLarge, match="Mpx"):
        decode(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ImageTooLarge, match="81"):
        decode(packed(Image.new("1", (9000, 9000)), "PNG"))
    with pytest.raises(ImageTooLarge, match="longest side"):
        decode(packed(Image.new("1", (40000, 1)), "PNG"))
    with pytest.raises(ImageTooLarge, match="MiB"):
        decode(bytes(2048), limits=Limits(max_bytes=1024))


def test_other_packages_write_nothing_into_our_log(caplog: pytest.LogCaptureFixture) -> None:
    damaged = bytearray(tiff(PHOTO, compression="zlib", photometric="rgb"))
    damaged[8:40] = bytes(range(32))
    for data in (
        bytes(damaged),
        b"II*\0\x08\0\0\0\xff\xff",
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        bytes(128) + b"DICM\2\0",
    ):
        with pytest.raises(ImageError):
            decode(data)
    for package in ("PIL", "PIL.TiffImagePlugin", "tifffile", "pydicom", "imagecodecs"):
        logging.getLogger(package).error("a client's file")
    assert not caplog.records


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF"])
def test_what_is_stated_before_is_true_afterwards(kind: str) -> None:
    data = packed(Image.fromarray(PHOTO), kind)
    encoded = inspect(data)
    assert encoded.size == encoded.decode().image.shape[:2] == (24, 36)
    assert encoded.working_bytes >= 7 * 24 * 36
    with pytest.raises(ImageTooLarge):
        inspect(data, limits=Limits(max_mpx=0.0005))
    with pytest.raises(NoSuchPart):
        inspect(data, choice=Choice(bands=(9,))).decode()
