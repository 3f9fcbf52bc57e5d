"""JPEG 2000: files and codestreams, depths, signs, channels; what would take much more than its pixels is refused."""

import struct

import numpy as np
import pytest
from imagecodecs import jpeg2k_encode
from PIL import Image

from models.io import jpeg2000_header
from models.io.decode import decode, inspect
from models.io.samples import ImageError, ImageTooLarge, Limits
from tests.models.io import profiles
from tests.models.io.drawn import packed, textured

PHOTO = textured(90, 130)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("options", [{}, {"no_jp2": True}, {"tile_size": (50, 40)}, {"precinct_size": (32, 32)}])
def test_files_and_codestreams_are_opened(mode: str, options: dict) -> None:
    data = packed(PHOTO.convert(mode), "JPEG2000", **options)
    assert inspect(data).size == (90, 130)
    assert (decode(data).image == np.asarray(PHOTO.convert(mode).convert("RGB"))).all()


def test_alpha_is_what_the_file_calls_so() -> None:
    photo = np.dstack([np.asarray(PHOTO), np.tile(np.array([0, 255], np.uint8), (90, 65))])
    file = decode(packed(Image.fromarray(photo), "JPEG2000"))
    assert file.valid is not None
    assert (file.valid == (photo[..., 3] > 0)).all()
    assert (file.image[:, ::2] == 255).all()
    stream = decode(packed(Image.fromarray(photo), "JPEG2000", no_jp2=True))
    assert stream.valid is None
    assert (stream.image == photo[..., :3]).all()
    assert "1 of the file's 4 bands" in stream.warnings[0]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_samples(bits: int) -> None:
    deep = np.asarray(PHOTO).astype(np.uint16) << (bits - 8)
    shown = decode(jpeg2k_encode(deep, bitspersample=bits, level=0, codecformat="J2K"), depth="full")
    assert np.abs(shown.image.astype(int) - np.asarray(PHOTO)).max() <= 1
    assert f"0..{2**bits - 1} " in (shown.depth_rule or "")


def test_signed_samples_begin_at_black() -> None:
    signed = np.asarray(PHOTO).astype(np.int16) * 64 - 8000
    shown = decode(jpeg2k_encode(signed, level=0), depth="minmax")
    photo = np.asarray(PHOTO).astype(float)
    want = (photo - photo.min()) * 255 / (photo.max() - photo.min())
    assert np.abs(shown.image - want).max() <= 1


def test_colors_are_managed() -> None:
    data = packed(PHOTO, "JPEG2000")
    at = data.index(b"colr")
    body = b"\2\0\0" + profiles.rgb()
    colr = struct.pack(">I", 8 + len(body)) + b"colr" + body
    old = data[at - 4 : at - 4 + int.from_bytes(data[at - 4 : at])]
    head = data.index(b"jp2h")
    longer = int.from_bytes(data[head - 4 : head]) + len(colr) - len(old)
    wide = data[: head - 4] + struct.pack(">I", longer) + data[head : at - 4] + colr + data[at - 4 + len(old) :]
    assert np.abs(decode(wide).image.astype(int) - profiles.shown(np.asarray(PHOTO))).max() <= 2


def test_limits_stand_before_the_decoder() -> None:
    data = bytearray(packed(PHOTO, "JPEG2000", no_jp2=True))
    size = data.index(b"\xff\x51") + 6
    data[size : size + 8] = struct.pack(">II", 60000, 60000)
    with pytest.raises(ImageTooLarge, match="3600"):
        inspect(bytes(data))
    data[size : size + 8] = struct.pack(">II", 7000, 7000)  # within the pixels, in 32 bits a sample beyond the bytes
    with pytest.raises(ImageTooLarge, match="MB"):
        inspect(bytes(data))
    small = Limits(max_mpx=0.5)
    assert inspect(packed(PHOTO, "JPEG2000"), limits=small).size == (90, 130)
    for greedy in ({"codeblock_size": (4, 4), "tile_size": (32, 32)}, {"tile_size": (2, 2)}):
        with pytest.raises(ImageTooLarge):
            inspect(packed(PHOTO, "JPEG2000", **greedy), limits=Limits(max_mpx=0.05))


def test_what_a_tile_states_for_itself_is_counted() -> None:
    data = packed(PHOTO, "JPEG2000", no_jp2=True)
    at, coding = data.index(b"\xff\x90"), data.index(b"\xff\x52")
    own = bytearray(data[coding : coding + 2 + int.from_bytes(data[coding + 2 : coding + 4])])
    own[10:12] = b"\0\0"  # code blocks of 4 by 4
    changed = data[: at + 12] + bytes(own) + data[at + 12 :]
    assert jpeg2000_header.read(changed).blocks > 20 * jpeg2000_header.read(data).blocks


def test_cut_files_are_refused() -> None:
    whole = packed(PHOTO, "JPEG2000")
    for length in range(12, len(whole) - 2, len(whole) // 25):
        with pytest.raises(ImageError):
            decode(whole[:length])


def test_blocks_are_counted() -> None:
    header = jpeg2000_header.read(packed(PHOTO, "JPEG2000", codeblock_size=(4, 4)))
    plain = jpeg2000_header.read(packed(PHOTO, "JPEG2000"))
    assert header.blocks > 90 * 130 * 3 / 16
    assert plain.blocks < header.blocks / 20
