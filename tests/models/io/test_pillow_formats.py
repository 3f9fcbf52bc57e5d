"""BMP and GIF."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from models.io.decode import decode, inspect
from models.io.samples import ImageError, ImageTooLarge, UnsupportedImage
from tests.models.io.drawn import PHOTO, packed, textured


def test_bmp_in_its_depths() -> None:
    photo = Image.fromarray(PHOTO)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        data = packed(photo.convert(mode), "BMP")
        want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert inspect(data).size == (24, 36)
        assert (decode(data).image == want).all(), mode


def test_bmp_of_a_kind_nobody_decodes_is_named() -> None:
    data = bytearray(packed(Image.fromarray(PHOTO), "BMP"))
    struct.pack_into("<I", data, 30, 5)  # a PNG inside
    with pytest.raises(UnsupportedImage, match="BMP"):
        decode(bytes(data))


def test_gif_shows_its_first_frame_and_its_transparency() -> None:
    frames = [textured(24, 36).quantize(64), textured(24, 36).quantize(8)]
    data = packed(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data).image == np.asarray(frames[0].convert("RGB"))).all()
    clear = packed(frames[0], "GIF", transparency=3)
    with Image.open(io.BytesIO(clear)) as opened:
        opacity = np.asarray(opened.convert("RGBA"))[..., 3]
    shown = decode(clear)
    assert shown.valid is not None
    assert (shown.valid == (opacity > 0)).all()
    assert (~shown.valid).sum() > 0
    assert (shown.image[~shown.valid] == 255).all()


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_limits_and_damage(kind: str) -> None:
    data = bytearray(packed(Image.fromarray(PHOTO), kind))
    for length in range(6, len(data) // 2, 40):
        with pytest.raises(ImageError):
            decode(bytes(data[:length]))
    if kind == "BMP":
        struct.pack_into("<ii", data, 18, 30000, 30000)
    else:
        struct.pack_into("<HH", data, 6, 30000, 30000)
    with pytest.raises(ImageTooLarge, match="Mpx"):
        inspect(bytes(data))
