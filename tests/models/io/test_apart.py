"""AVIF, HEIC and JPEG XL: decoded in a process with limits, shown as other readers show them."""

import base64
import io
from importlib.util import find_spec

import numpy as np
import pytest
from imagecodecs import jpegxl_encode
from PIL import Image, ImageOps

from models.io import apart, jpegxl_header
from models.io.decode import decode, inspect
from models.io.samples import ImageError, ImageTooLarge, Limits
from tests.models.io import profiles
from tests.models.io.drawn import PHOTO, packed

SOFT = Image.radial_gradient("L").resize((48, 32))
SOFT = Image.merge("RGB", (SOFT, SOFT.rotate(180).point(lambda v: 255 - v), SOFT.point(lambda v: v // 2)))
CLEAR = np.dstack([PHOTO, np.where(np.arange(36) < 20, 255, 0).astype(np.uint8) * np.ones((24, 1), np.uint8)])

# Four fields, 48 by 64: red, green, blue, yellow; the second one has the yellow field transparent. Drawn for this test,
# packed by libheif: there is no encoder in the packages of the tests.
FIELDS = np.zeros((48, 64, 3), np.uint8)
FIELDS[:24, :32], FIELDS[:24, 32:], FIELDS[24:, :32], FIELDS[24:, 32:] = (
    (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40),
)  # fmt: skip
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABoQABAAAAAAAAARoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/Wlw"
    "cnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAA"
    "QAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWB"
    "AgMFhAAAASJtZGF0AAABFigBrwT47Xl0S1v+TKP//aa/f/qhuW+5ZBeA+pPBL9V1//74/SIa6YbJ40q5qYTkd7qdeQWWXJ8fnnOeM3x8G+GP"
    "xnxdUkK6S435upmv15e9DsKsQwiHr++1//5Nif/warSTKkKCZfdrF/2Dt676UYB5w+19PC29+7el5z6xr3/ppHdrO6qzDuxoqaIM1LWvXmz8"
    "/vz4T/p5/6A447pjKKUcp4+DFxoH/XduP3uVts/qNnC0/A5+0znPF3dEWHtanoHWL8l7ueBHfyMzoi+ngR8AFAixes4IpVYK7PuIs2j/PQYt"
    "wWkOPbQBSQNOB3Rqvol5ZIL0uuWtcm24kytEdeRuvzn99CTsjIwyzA42W33EJS59KgvA"
)
HEIC_CLEAR = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAACjwABAAAAAAAAARoAAgAAAAADqQABAAAAAAAAAOEAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNg"
    "AAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZE"
    "AcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AA"
    "AAACAAAAEHBpeGkAAAAAAwgICAAAAHBodmNDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJAYQAB"
    "ACVCAQEECAAAAwCf+AAAAwAAHsCCBBZbq5Ka5sCAAAAMgAAAAwCEYgABAAZEAcFzwIkAAAAOcGl4aQAAAAABCAAAACdhdXhDAAAAAHVybjpt"
    "cGVnOmhldmM6MjAxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEA"
    "AAIDbWRhdAAAARYoAa8E+O15dEtb/kyj//2mv3/6oblvuWQXgPqTwS/Vdf/++P0iGumGyeNKuamE5He6nXkFllyfH55znjN8fBvhj8Z8XVJC"
    "ukuN+bqZr9eXvQ7CrEMIh6/vtf/+TYn/8Gq0kypCgmX3axf9g7eu+lGAecPtfTwtvfu3pec+sa9/6aR3azuqsw7saKmiDNS1r15s/P78+E/6"
    "ef+gOOO6YyilHKePgxcaB/13bj97lbbP6jZwtPwOftM5zxd3RFh7Wp6B1i/Je7ngR38jM6Ivp4EfABQIsXrOCKVWCuz7iLNo/z0GLcFpDj20"
    "AUkDTgd0ar6JeWSC9LrlrXJtuJMrRHXkbr85/fQk7IyMMswONlt9xCUufSoLwAAAAN0oAa4J8J/zK2n970n7X2GN2JiCD/VvJmgC+/5o+Aib"
    "kzVCyntK5WDP8eEn08sqI5qjWkWXXOYWx1EdHmHpj46cyd4LuFiwUUTrTmS2/KAWc3R99K/68aBU3GmwvbdTq2fK3N8KZmLf917vf8NDvP+D"
    "+Jv/pU/+XM54tP/S93HiwwmCVXi5bh4muXd0W9/+/SAQ+OHwJfF3Ikf1X1/O4KpYCXD+rO0iaO9zNulsWQTn3RxORtBfM8WTOmfKsF1/d9wJ"
    "AIrrnW0XcwcvvN/JVkl9yPuI7N0K/z/fzQRJwA=="
)
needs_heic = pytest.mark.skipif(find_spec("pi_heif") is None, reason="without the extra `heic`")


def off(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got.astype(int) - want).mean())


def test_avif_is_shown_as_pillow_shows_it() -> None:
    for mode in ("RGB", "L"):
        data = packed(SOFT.convert(mode), "AVIF", quality=90)
        assert inspect(data).size == (32, 48)
        assert (decode(data).image == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    clear = decode(packed(Image.fromarray(CLEAR), "AVIF", quality=90))
    assert clear.valid is not None
    assert (clear.valid == (CLEAR[..., 3] > 0)).all()
    wide = packed(SOFT, "AVIF", quality=100, icc_profile=profiles.rgb())
    with Image.open(io.BytesIO(wide)) as opened:
        assert np.abs(decode(wide).image.astype(int) - profiles.shown(np.asarray(opened))).max() <= 2


def with_code_points(data: bytes, primaries: int, transfer: int) -> bytes:
    """The file, with these in its colr box; neither decoder looks at them."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + bytes([0, primaries, 0, transfer]) + data[at + 4 :]


@pytest.mark.parametrize("kind", ["AVIF", pytest.param("HEIC", marks=needs_heic)])
@pytest.mark.slow
def test_colors_by_code_points(kind: str) -> None:
    data = HEIC if kind == "HEIC" else packed(SOFT, "AVIF", quality=90)
    plain = decode(data).image
    light = profiles.srgb_to_light(plain)
    for primaries, transfer, want in (
        (12, 13, profiles.as_srgb(light, profiles.DISPLAY_P3)),
        (9, 1, profiles.as_srgb(light, profiles.BT_2020)),
        (1, 8, profiles.as_srgb(plain / 255, profiles.BT_709)),
    ):
        shown = decode(with_code_points(data, primaries, transfer))
        assert np.abs(shown.image.astype(int) - want).max() <= 2
        assert not shown.warnings
    for primaries, transfer in ((1, 1), (2, 2), (1, 13)):
        shown = decode(with_code_points(data, primaries, transfer))
        assert (shown.image == plain).all()
        assert not shown.warnings
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        shown = decode(with_code_points(data, 9, transfer))
        assert (shown.image == plain).all()
        assert shown.warnings == (f"its colors are HDR ({name}), which is not converted",)


def test_a_profile_goes_before_code_points() -> None:
    data = packed(SOFT, "AVIF", quality=90, icc_profile=profiles.rgb())
    assert (decode(with_code_points(data, 12, 8)).image == decode(data).image).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_avif_is_turned(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = packed(SOFT, "AVIF", quality=90, exif=exif)
    shown = decode(data)
    assert inspect(data).size == shown.image.shape[:2]
    assert (shown.image == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()


def test_xmp_does_not_turn_an_avif() -> None:
    xmp = b'<x:xmpmeta xmlns:tiff="a" tiff:Orientation="6"/>'
    data = packed(SOFT, "AVIF", quality=90, xmp=xmp)
    assert inspect(data).size == (32, 48)
    assert decode(data).image.shape == (32, 48, 3)


@pytest.mark.parametrize("options", [{}, {"usecontainer": True}, {"level": 90}])
def test_jpeg_xl(options: dict) -> None:
    photo = np.asarray(SOFT)
    data = bytes(jpegxl_encode(photo, **options))
    assert inspect(data).size == (32, 48)
    assert off(decode(data).image, photo) <= (4 if options.get("level") else 0)


@pytest.mark.parametrize("size", [(8, 8), (64, 256), (7, 1234), (1000, 3), (300, 400), (600, 800), (90, 160), (513, 1)])
def test_the_size_in_a_jpeg_xl(size: tuple[int, int]) -> None:
    for bands in (1, 2, 3, 4):
        data = bytes(jpegxl_encode(np.zeros((*size, bands), np.uint8)[..., : None if bands > 1 else 1], effort=1))
        header = jpegxl_header.read(data)
        assert header.size == size
        assert header.alpha == (0 if bands in (2, 4) else None)


def test_jpeg_xl_of_other_depths_and_with_alpha() -> None:
    photo = np.asarray(SOFT)
    for deep, rule in (
        (photo.astype(np.uint16) * 257, "0..65535"),
        ((photo / 255).astype(np.float32), "0..1"),
    ):
        shown = decode(bytes(jpegxl_encode(deep)), depth="full")
        assert np.abs(shown.image.astype(int) - photo).max() <= 1
        assert rule in (shown.depth_rule or "")
    ten = decode(bytes(jpegxl_encode(photo.astype(np.uint16) * 4, bitspersample=10)), depth="full")
    assert np.abs(ten.image.astype(int) - photo).max() <= 1
    clear = decode(bytes(jpegxl_encode(CLEAR)))
    assert clear.valid is not None
    assert (clear.valid == (CLEAR[..., 3] > 0)).all()
    moving = bytes(jpegxl_encode(np.stack([photo, photo[::-1]])))
    assert (decode(moving).image == photo).all()


@needs_heic
def test_heic() -> None:
    assert inspect(HEIC).size == (48, 64)
    assert off(decode(HEIC).image, FIELDS) < 6
    clear = decode(HEIC_CLEAR)
    assert clear.valid is not None
    assert clear.valid[:24].all()
    assert clear.valid[28:, 36:].mean() < 0.05  # the alpha, too, is nearly what was packed
    assert (clear.image[28:, 36:] > 250).all()


@pytest.mark.parametrize("kind", ["AVIF", "JPEG XL", pytest.param("HEIC", marks=needs_heic)])
def test_damage_and_limits(kind: str) -> None:
    if kind == "HEIC":
        whole = HEIC
    else:
        whole = packed(SOFT, "AVIF") if kind == "AVIF" else bytes(jpegxl_encode(np.asarray(SOFT)))
    for part in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError):
            decode(whole[: int(len(whole) * part)])
    with pytest.raises(ImageTooLarge):
        inspect(whole, limits=Limits(max_mpx=0.001))


def test_what_takes_more_than_was_granted_ends_alone() -> None:
    large = bytes(jpegxl_encode(np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8), effort=1))
    assert apart.decode(large, "JPEG XL", 200_000_000).shape == (1500, 1500, 3)
    with pytest.raises(ImageTooLarge, match=" 4 MB"):
        apart.decode(large, "JPEG XL", 4_000_000, needed_bytes=90_000_000)


def test_a_sound_file_over_the_grant_is_too_large_and_a_truncated_one_within_it_is_damaged() -> None:
    large = bytes(jpegxl_encode(np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8), effort=1))
    tight = Limits(max_mpx=3)  # 24 MB of samples; 40 bytes for each of the pixels would be 90 MB
    with pytest.raises(ImageTooLarge, match="24 MB"):
        inspect(large, limits=tight).decode()
    for data in (large[:-1000], bytes(jpegxl_encode(np.asarray(SOFT)))[:-20]):
        with pytest.raises(ImageError, match="damaged or truncated") as raised:
            decode(data)
        assert not isinstance(raised.value, ImageTooLarge)
