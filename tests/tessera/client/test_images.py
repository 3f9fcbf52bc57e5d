"""What holds an image becomes the file that the server reads."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.io.decode import decode
from tessera.client import BadImage
from tessera.client.images import read
from tests.tiny import bands

PIXELS = bands(6, 10)


def test_files_go_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"anything")
    with path.open("rb") as file:
        assert read(file) == b"anything"
    assert {read(path), read(str(path)), read(b"anything"), read(bytearray(b"anything"))} == {b"anything"}
    assert read(io.BytesIO(b"anything")) == read(memoryview(b"anything")) == b"anything"


@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS,
        PIXELS[..., 0],
        PIXELS[..., :1],
        PIXELS[::-1, ::2],
        np.dstack([PIXELS, np.full((6, 10), 255, np.uint8)]),
        PIXELS.astype(np.uint16) * 257,
    ],
    ids=["rgb", "gray", "one channel", "a view", "rgba", "16 bits"],
)
def test_an_array_arrives_pixel_for_pixel(pixels: np.ndarray[Any, Any]) -> None:
    eight = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    shown = eight if eight.ndim == 3 and eight.shape[2] == 3 else np.atleast_3d(eight)[..., :3]
    arrived = decode(read(pixels), depth="full").image
    assert (arrived == np.broadcast_to(shown, (*shown.shape[:2], 3))).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_a_pil_image_arrives_as_it_stands(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    assert (decode(read(image)).image == np.asarray(image.convert("RGB"))).all()


def test_a_pil_image_is_not_turned_again() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(buffer, "JPEG", exif=exif)
    assert decode(read(Image.open(buffer))).image.shape == (6, 10, 3)
    assert decode(read(buffer.getvalue())).image.shape == (10, 6, 3)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nowhere.jpg", "'nowhere.jpg' cannot be read: No such file"),
        ("https://example.org/a.jpg", "fetch it"),
        ("a\0b", "cannot be read"),
        (b"", "no bytes"),
        (io.BytesIO(), "read before"),
        (io.StringIO("a"), "mode 'rb'"),
        (np.zeros((4, 4, 3)), "float64 has no range"),
        (np.zeros((4, 4), bool), "bool has no range"),
        (np.zeros((3, 4, 4, 3), np.uint8), "(3, 4, 4, 3) is no image"),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3) is no image"),
        (Image.new("F", (3, 3)), "mode F"),
        (7, "int is no image"),
    ],
)
def test_what_is_no_image_is_said_in_a_sentence(image: Any, words: str) -> None:
    with pytest.raises(BadImage) as refused:
        read(image)
    assert words in str(refused.value)
