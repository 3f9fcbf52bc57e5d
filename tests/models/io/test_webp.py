"""WebP: still pictures by libwebp, the first frame of animations; metadata decide nothing."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.io.decode import decode, inspect
from models.io.samples import ImageError, ImageTooLarge
from tests.models.io import profiles
from tests.models.io.drawn import PHOTO, packed, textured

CLEAR = np.dstack([PHOTO, np.where(PHOTO[..., 0] > 99, 255, 0).astype(np.uint8)])


def with_chunk(data: bytes, name: bytes, body: bytes, flag: int) -> bytes:
    """A simple file made an extended one, with a chunk behind its picture."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    extended = bytes((flag, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    more = name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    chunks = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + extended + data[12:] + more
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 70}, {"quality": 95, "exact": True}])
def test_pixels_are_pillows(options: dict) -> None:
    data = packed(textured(45, 70), "WEBP", **options)
    assert inspect(data).size == (45, 70)
    assert (decode(data).image == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 80}])
def test_alpha_is_validity(options: dict) -> None:
    shown = decode(packed(Image.fromarray(CLEAR), "WEBP", **options))
    assert shown.valid is not None
    assert (shown.valid == (CLEAR[..., 3] > 0)).all()
    assert (shown.image[~shown.valid] == 255).all()


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    data = packed(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert inspect(data).size == (24, 36)
    assert (decode(data).image == PHOTO).all()


def test_colors_are_managed_and_turned() -> None:
    data = packed(Image.fromarray(PHOTO), "WEBP", lossless=True, icc_profile=profiles.rgb())
    assert np.abs(decode(data).image.astype(int) - profiles.shown(PHOTO)).max() <= 2
    exif = Image.Exif()
    exif[0x0112] = 6
    data = packed(Image.fromarray(PHOTO), "WEBP", lossless=True, exif=exif)
    assert inspect(data).size == (36, 24)
    assert (decode(data).image == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()


@pytest.mark.parametrize(
    ("name", "body", "flag"),
    [
        (b"EXIF", b"hello", 8),
        (b"EXIF", b"", 8),
        (b"XMP ", b"\xff" * 2_000_000, 4),
        (b"ICCP", b"no profile", 32),
        (b"ICCP", bytes(5 * 2**20), 32),
        (b"abcd", bytes(99), 0),
    ],
)
def test_metadata_do_not_decide(name: bytes, body: bytes, flag: int) -> None:
    plain = packed(Image.fromarray(PHOTO), "WEBP", lossless=True)
    assert (decode(with_chunk(plain, name, body, flag)).image == PHOTO).all()


def test_limits_and_damage() -> None:
    plain = packed(Image.fromarray(PHOTO), "WEBP", lossless=True)
    large = bytearray(with_chunk(plain, b"abcd", b"", 0))
    large[24:30] = (16000).to_bytes(3, "little") * 2
    with pytest.raises(ImageTooLarge, match="Mpx"):
        inspect(bytes(large))
    large[24:30] = (99).to_bytes(3, "little") * 2  # another size than the picture's
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(large))
    for length in range(12, len(plain) - 2, len(plain) // 20):
        with pytest.raises(ImageError):
            decode(plain[:length])
