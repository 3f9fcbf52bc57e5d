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


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("grays", [(0, 255), (255, 0), (10, 200), (1, 0), tuple(range(16)), (0, 17, 34, 51, 68)])
def test_bmp_of_gray_palettes_by_their_indices(bits: int, grays: tuple[int, ...]) -> None:
    ids = (np.arange(16 * 24).reshape(16, 24) % len(grays)).astype(np.uint8)
    rows = ids[::-1] if bits == 8 else (ids[::-1, 0::2] << 4 | ids[::-1, 1::2]).astype(np.uint8)
    body = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    begin = 14 + 40 + 4 * len(grays)
    head = b"BM" + struct.pack("<IHHI", begin + len(body), 0, 0, begin)
    info = struct.pack("<IiiHHIIiiII", 40, 24, 16, 1, bits, 0, len(body), 0, 0, len(grays), 0)
    palette = b"".join(bytes((gray, gray, gray, 0)) for gray in grays)
    shown = decode(head + info + palette + body).image
    assert (shown == np.array(grays)[ids][..., None]).all()
