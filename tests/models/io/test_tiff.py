"""TIFF as viewers show it: what samples mean, which of them are shown, where they hold data, which image of a file."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from models.io.decode import decode, inspect
from models.io.samples import Choice, Decoded, ImageError, ImageTooLarge, Limits, NoSuchPart, UnsupportedImage
from tests.models.io.drawn import PHOTO, directory_file, packed, textured, tiff

STREET = np.asarray(textured(48, 64))
CORNER = np.ones((48, 64), bool)
CORNER[:20, :30] = False  # where the tests' pictures hold no data


def shown(samples: np.ndarray, **options: Any) -> np.ndarray:
    """What tifffile's file of the samples is decoded to."""
    return decode(tiff(samples, **options)).image


def rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma"])
def test_compressed_tiff(compression: str) -> None:
    assert (shown(PHOTO, compression=compression, photometric="rgb") == PHOTO).all()


def test_codecs_that_are_image_formats() -> None:
    for compression in ("jpeg", "jpeg2000", "webp"):
        for tile in (None, (16, 32)):
            data = tiff(STREET, compression=compression, photometric="rgb", tile=tile)
            assert (decode(data).image == tifffile.imread(io.BytesIO(data))).all(), compression
    height = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    for second in (None, "deflate", "zstd"):
        packed_twice = {"compression": second, "version": 4} if second else {}
        got = shown(height, compression="lerc", compressionargs=packed_twice)
        assert (got == shown(height)).all(), second


def test_fax_is_black_on_white() -> None:
    page = Image.fromarray(STREET).convert("1")
    for compression in ("group3", "group4", "tiff_ccitt"):
        got = decode(packed(page, "TIFF", compression=compression)).image
        assert (got == np.asarray(page.convert("RGB"))).all(), compression


# ---- what samples mean ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grays_of_up_to_eight_bits_fill_the_range(bits: int, photometric: str) -> None:
    values = np.arange(48 * 64).reshape(48, 64) % 2**bits
    want = np.rint(values * 255 / (2**bits - 1)).astype(np.uint8)
    got = shown(values.astype(np.uint8), bitspersample=bits, photometric=photometric)
    assert (got == rgb(want if photometric == "minisblack" else 255 - want)).all()


@pytest.mark.parametrize("kind", ["u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
def test_white_is_zero_is_the_negative(kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 100, (48, 64)).astype(kind)
    negative = shown(values, photometric="miniswhite").astype(int)
    assert np.abs(255 - negative - shown(values, photometric="minisblack")).max() <= 1
    assert negative.max() - negative.min() == 255


def test_packed_depths_know_their_range() -> None:
    for bits in (9, 10, 12, 14):
        values = np.array([[0, 2**bits - 1]], np.uint16)
        got = decode(tiff(values, bitspersample=bits, photometric="minisblack"), depth="full")
        assert got.image[0, :, 0].tolist() == [0, 255]
        assert f"0..{2**bits - 1} " in (got.depth_rule or "")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1, 257])
def test_palettes_of_any_depth_and_either_scale(bits: int, scale: int) -> None:
    colors = np.random.default_rng(bits).integers(0, 256, (3, 2**bits))
    colors[0, 0] = 255
    ids = (np.arange(48 * 64) % 2**bits).astype(np.uint8).reshape(48, 64)
    data = palette_file(ids, bits, (colors * scale).astype(np.uint16))
    assert (decode(data).image == colors.T[ids]).all()


def palette_file(ids: np.ndarray, bits: int, colors: np.ndarray) -> bytes:
    data = tiff(
        ids, bitspersample=bits, photometric="minisblack", extratags=[(320, 3, colors.size, colors.ravel(), True)]
    )
    return retagged(data, 262, 3)


def retagged(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian file whose first directory has another value for a tag of one SHORT."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            return data[: entry + 2] + struct.pack("<HII", 3, 1, value) + data[entry + 12 :]
    raise AssertionError(f"no tag {tag}")


def test_palette_with_alpha() -> None:
    ids = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64) % 7
    colors = np.random.default_rng(0).integers(256, 65536, (3, 256)).astype(np.uint16)
    samples = np.stack([ids, np.where(CORNER, 255, 0).astype(np.uint8)], -1)
    data = tiff(samples, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"],
                extratags=[(320, 3, colors.size, colors.ravel(), True)])  # fmt: skip
    got = decode(retagged(data, 262, 3))
    assert (got.image[CORNER] == (colors >> 8).T[ids][CORNER]).all()
    assert (got.image[~CORNER] == 255).all()
    assert (got.valid == CORNER).all()


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_cmyk_of_8_and_16_bits(kind: str) -> None:
    inks = np.asarray(Image.fromarray(STREET).convert("CMYK"))
    samples = inks if kind == "u1" else inks.astype(np.uint16) * 257
    got = shown(samples, photometric="separated")
    assert (got == np.asarray(Image.frombytes("CMYK", (64, 48), inks.tobytes()).convert("RGB"))).all()


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 2)])
def test_ycbcr_without_jpeg(compression: str | None, subsampling: tuple[int, int]) -> None:
    smooth = np.asarray(Image.fromarray(STREET).resize((8, 6)).resize((61, 45), Image.Resampling.BICUBIC))
    planes = np.asarray(Image.fromarray(smooth).convert("YCbCr"))
    down, across = subsampling
    want = np.asarray(Image.frombytes("YCbCr", (61, 45), planes.tobytes()).convert("RGB")).astype(int)
    got = decode(ycbcr_file(planes, down, across, compression)).image
    assert np.abs(got - want).mean() < (1 if subsampling == (1, 1) else 6)


def ycbcr_file(planes: np.ndarray, down: int, across: int, compression: str | None) -> bytes:
    """YCbCr in one strip: units of down × across lumas, then the chromas at their first pixel."""
    import imagecodecs

    height, width = planes.shape[:2]
    padded = np.pad(planes, ((0, -height % down), (0, -width % across), (0, 0)), mode="edge")
    luma = padded[..., 0].reshape(len(padded) // down, down, -1, across).transpose(0, 2, 1, 3)
    units = [luma.reshape(*luma.shape[:2], -1), padded[::down, ::across, 1:]]
    raw = np.concatenate(units, axis=2).astype(np.uint8).tobytes()
    code, body = {
        None: (1, raw),
        "lzw": (5, imagecodecs.lzw_encode(raw)),
        "zlib": (8, imagecodecs.zlib_encode(raw)),
    }[compression]
    return directory_file(
        {256: width, 257: height, 258: (8, 8, 8), 259: code, 262: 6, 277: 3, 278: height, 530: (across, down)}, body
    )


@pytest.mark.parametrize("photometric", [8, 9])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab_of_8_and_16_bits(photometric: int, bits: int) -> None:
    # sRGB's primaries, white and a gray as CIE L*a*b* of D50 (Lindbloom, Bradford-adapted).
    lab = np.array([[54.29, 80.81, 69.89], [87.82, -79.27, 80.99], [29.57, 68.30, -112.03], [100, 0, 0], [53.59, 0, 0]])
    want = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128]]
    offset = 0 if photometric == 8 else 128
    stored = np.rint(lab * (2.55, 1, 1) + (0, offset, offset)).astype(int)[:, None].repeat(8, axis=1)
    samples = (stored & 0xFF).astype(np.uint8) if bits == 8 else ((stored & 0xFF) << 8).astype(np.uint16)
    got = decode(retagged(tiff(samples, photometric="rgb"), 262, photometric)).image[:, 0]
    assert np.abs(got.astype(int) - want).max() <= 24  # 8 bits of L*a*b* are coarse at the edge of sRGB


def test_what_is_not_shown_is_named() -> None:
    plain = tiff(STREET[..., 0], photometric="minisblack")
    for photometric, name in ((4, "transparency mask"), (10, "ITULab"), (32844, "LogL"), (77, "77")):
        with pytest.raises(UnsupportedImage, match=name):
            decode(retagged(plain, 262, photometric))
    with pytest.raises(UnsupportedImage, match="camera raw"):
        decode(retagged(plain, 262, 32803))
    with pytest.raises(UnsupportedImage, match="complex"):
        decode(tiff(np.ones((8, 8), np.complex64)))
    with pytest.raises(UnsupportedImage, match="PixarLog"):
        decode(retagged(plain, 259, 32909))
    with pytest.raises(UnsupportedImage, match=r"CIELab.*12 bits"):
        decode(retagged(tiff(np.zeros((8, 8, 3), np.uint16), bitspersample=12, photometric="rgb"), 262, 8))


def test_without_a_photometric_tag_zero_is_black() -> None:
    data = tiff(STREET[..., 0], photometric="minisblack")
    assert (decode(without(data, 262)).image == rgb(STREET[..., 0])).all()
    assert (decode(without(tiff(STREET, photometric="rgb"), 262)).image == STREET).all()


def without(data: bytes, tag: int) -> bytes:
    """The file whose entry of a tag is a private one's."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[e : e + 12] for e in range(at + 2, at + 2 + 12 * count, 12)]
    kept = [e for e in entries if struct.unpack_from("<H", e)[0] != tag]
    kept.append(struct.pack("<HHII", 65300, 4, 1, 0))
    return data[: at + 2] + b"".join(kept) + data[at + 2 + 12 * count :]


# ---- alpha and bands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_a_fourth_band_is_alpha_only_where_the_file_says_so(kind: str) -> None:
    scale = {"u1": 1, "u2": 257, "f4": 1 / 255}[kind]
    colors = (STREET.astype(np.float64) * scale).astype(kind)
    infrared = colors[..., :1]
    four = tiff(np.concatenate([colors, infrared], 2), photometric="rgb", extrasamples=["unspecified"])
    for data in (four, without(four, 338)):
        got = decode(data)
        assert got.valid is None
        assert (got.image == decode(tiff(colors, photometric="rgb")).image).all()
        assert "4 is left out" in got.warnings[0]
    over = np.where(CORNER, 255 * scale, 0).astype(kind)[..., None]
    for bands, extra in (([colors, over], ["unassalpha"]), ([colors, infrared, over], ["unspecified", "unassalpha"]),
                         ([colors, over, infrared], ["unassalpha", "unspecified"])):  # fmt: skip
        got = decode(tiff(np.concatenate(bands, 2), photometric="rgb", extrasamples=extra), depth="full")
        assert (got.valid == CORNER).all()
        assert (got.image[~CORNER] == 255).all()
        assert np.abs(got.image[CORNER].astype(int) - STREET[CORNER]).max() <= 1


def test_associated_alpha_is_laid_on_white_once() -> None:
    over = np.tile(np.linspace(40, 255, 64).astype(np.uint8), (48, 1))[..., None]
    multiplied = np.rint(STREET * (over / 255)).astype(np.uint8)
    want = np.rint(STREET * (over / 255) + (255 - over))
    for kind, scale in (("u1", 1), ("u2", 257)):
        samples = np.concatenate([multiplied, over], 2).astype(kind) * np.array(scale, kind)
        got = decode(tiff(samples, photometric="rgb", extrasamples=["assocalpha"]), depth="full").image
        assert np.abs(got - want).max() <= 4, kind


def test_two_bands_are_gray_and_whatever_the_file_says() -> None:
    gray, other = STREET[..., 0].astype(np.uint16) * 200, STREET[..., 2].astype(np.uint16)
    plain = shown(gray, photometric="minisblack")
    samples = np.stack([gray, other], -1)
    got = decode(tiff(samples, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]))
    assert (got.image == plain).all()
    assert "2 is left out" in got.warnings[0]


def test_bands_are_chosen_from_one() -> None:
    bands = np.random.default_rng(0).integers(0, 256, (6, 48, 64)).astype(np.uint8)
    for planar in ("separate", "contig"):
        samples = bands if planar == "separate" else np.ascontiguousarray(np.moveaxis(bands, 0, 2))
        data = tiff(samples, photometric="minisblack", planarconfig=planar)
        assert (decode(data).image == np.moveaxis(bands[:3], 0, 2)).all()
        assert (decode(data, bands=(6, 2, 1)).image == np.moveaxis(bands[[5, 1, 0]], 0, 2)).all()
        assert (decode(data, bands=(5,)).image == rgb(bands[4])).all()
        assert "of 6 bands, 1, 2, 4, 5 are left out" in decode(data, bands=(3, 6, 3)).warnings[0]
        for wrong in ((7, 1, 2), (1, 2)):
            with pytest.raises(NoSuchPart, match="1 to 6"):
                decode(data, bands=wrong)


@pytest.mark.parametrize("first", ["Undefined", "Alpha"])
def test_a_band_that_is_named_a_color_is_no_alpha(first: str) -> None:
    names = [first, "Red", "Green", "Blue"]
    items = "".join(f'<Item name="COLORINTERP" sample="{i}" role="colorinterp">{n}</Item>' for i, n in enumerate(names))
    over = np.where(CORNER, 255, 0).astype(np.uint8)[..., None]
    extra = ["unspecified", "unspecified", "unassalpha"]  # as GDAL writes it
    metadata = f"<GDALMetadata>{items}</GDALMetadata>"
    got = decode(tiff(np.concatenate([over, STREET], 2), photometric="minisblack", planarconfig="contig",
                      extrasamples=extra, extratags=[(42112, 2, 0, metadata, True)]))  # fmt: skip
    assert (got.image[CORNER] == STREET[CORNER]).all()
    assert (got.valid is None) == (first == "Undefined")


def test_gdals_names_of_bands_come_before_their_order() -> None:
    names = ["Blue", "Green", "Red", "NIR"]
    items = "".join(f'<Item name="COLORINTERP" sample="{i}" role="colorinterp">{n}</Item>' for i, n in enumerate(names))
    samples = np.concatenate([STREET[..., ::-1], STREET[..., :1]], 2)
    metadata = f"<GDALMetadata>{items}</GDALMetadata>"
    data = tiff(samples, photometric="minisblack", planarconfig="contig", extratags=[(42112, 2, 0, metadata, True)])
    got = decode(data)
    assert (got.image == STREET).all()
    assert "4 (nir) is left out" in got.warnings[0]


# ---- validity ---------------------------------------------------------------------------------------------------


def with_nodata(samples: np.ndarray, text: str | None, **options: Any) -> Decoded:
    tags = [] if text is None else [(42113, 2, 0, text, True)]
    return decode(tiff(samples, extratags=tags, **options))


LOWEST, HIGHEST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
NO_DATA = [
    ("f4", -9999, "-9999"), ("f4", -9999, "-9999,0"), ("f4", -32767, "-3.2767e4"), ("f2", -9999, "-9999"),
    ("f4", LOWEST, "-3.4028234663852886e+38"), ("f4", LOWEST, "-3.4e+38"), ("f4", HIGHEST, "3.40282346600000016e+38"),
    ("f4", np.nan, "nan"), ("f4", np.nan, "-1.#IND"), ("f4", np.nan, None), ("f4", np.inf, None), ("f8", 1e20, "1e+20"),
    ("u8", 2**64 - 1, str(2**64 - 1)), ("i8", 2**63 - 1, str(2**63 - 1)),
    ("i2", -32768, "-32768"), ("i4", -9999, "-9999"), ("u2", 0, "0"), ("u2", 65535, "65535"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "text"), NO_DATA)
def test_no_data_is_in_no_range_and_given_back(kind: str, value: float, text: str | None) -> None:
    street = (STREET.astype(np.float32) * 10 + 500).astype(kind)
    samples = street.copy()
    samples[~CORNER] = value if isinstance(value, int) else np.array(value, np.float64).astype(kind)
    inside = street[CORNER].astype(np.float32)
    low, high = np.percentile(inside, (2, 98))
    want = np.rint(np.clip((inside - low) * (255 / (high - low)), 0, 255))
    for layout in ({}, {"planarconfig": "separate"}):
        laid = np.moveaxis(samples, 2, 0) if layout else samples
        got = with_nodata(np.ascontiguousarray(laid), text, photometric="rgb", **layout)
        assert got.valid is not None
        assert (got.valid == CORNER).all()
        assert (got.image[~CORNER] == 0).all()
        assert np.abs(got.image[CORNER] - want).max() <= 1


def test_nan_and_no_data_are_one_picture() -> None:
    for photometric in ("minisblack", "miniswhite"):
        heights = STREET[..., 0].astype(np.float32)
        pictures = []
        for value, text in ((np.nan, None), (-9999.0, "-9999"), (np.finfo(np.float32).min, "-3.4028234663852886e+38")):
            samples = np.where(CORNER, heights, np.float32(value)).astype(np.float32)
            pictures.append(with_nodata(samples, text, photometric=photometric))
        for other in pictures[1:]:
            assert (other.image == pictures[0].image).all()
            assert (other.valid == pictures[0].valid).all()


def test_a_pixel_holds_data_where_any_band_does() -> None:
    samples = np.maximum(STREET, 1)
    samples[~CORNER] = 0
    samples[30, 40] = (0, 7, 9)
    got = with_nodata(samples, "0", photometric="rgb")
    assert got.valid is not None
    assert (got.valid == CORNER).all()
    assert got.image[30, 40].tolist() == [0, 7, 9]


def test_a_value_that_samples_cannot_hold_says_nothing() -> None:
    for text in ("-9999", "300", "0.5", "none", ""):
        assert with_nodata(STREET, text, photometric="rgb").valid is None


def test_all_invalid_is_a_picture_without_data() -> None:
    got = decode(tiff(np.full((8, 9), np.nan, np.float32)))
    assert got.valid is not None
    assert not got.valid.any()
    assert (got.image == 0).all()


def test_mask_pages_are_transparency() -> None:
    over = np.full((48, 64), 255, np.uint8)
    over[40:] = 0
    for samples, extra in ((STREET, ()), (np.concatenate([STREET, over[..., None]], 2), ("unassalpha",))):
        data = written((samples, {"extrasamples": extra}), (CORNER, {"photometric": "mask", "subfiletype": 4}))
        got = decode(data)
        valid = CORNER & (over > 0) if extra else CORNER
        assert got.pages == 1
        assert (got.valid == valid).all()
        assert (got.image[valid] == STREET[valid]).all()
        assert (got.image[~valid] == 255).all()


def test_a_level_without_a_mask_has_the_pictures() -> None:
    half = STREET[::2, ::2].copy()
    mask = (CORNER, {"photometric": "mask", "subfiletype": 4})
    data = written((STREET, {"tile": (16, 16)}), mask, (half, {"tile": (16, 16), "subfiletype": 1}))
    got = inspect(data, choice=Choice(enough=lambda size: (20, 20))).decode()
    assert got.valid is not None
    assert (got.valid == CORNER[::2, ::2]).all()


def test_validity_turns_with_the_picture() -> None:
    samples = np.where(CORNER, STREET[..., 0].astype(np.float32), np.float32(np.nan))
    got = decode(tiff(samples, extratags=[(274, "H", 1, 6, True)]))
    assert got.orientation == 6
    assert (got.valid == np.rot90(CORNER, 3)).all()


def test_floats_by_their_whole_range() -> None:
    values = np.random.default_rng(0).random((24, 36)).astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    got = decode(tiff(values), depth="full")
    assert got.valid is not None
    assert not got.valid[0, 0]
    assert not got.valid[1, 1]
    assert np.abs(got.image[5:, 5:, 0] - values[5:, 5:] * 255).max() <= 0.51


@pytest.mark.parametrize("value", ["-1", "300", "0.5", "nan", "inf", "-1e400", "1e300", "7"])
@pytest.mark.parametrize(("bits", "sample_format"), [(8, 1), (16, 2), (32, 3), (16, 3)])
def test_a_strip_that_is_left_out_is_no_data_whatever_that_is(value: str, bits: int, sample_format: int) -> None:
    body = bytes(range(8 * 2 * bits // 8))
    tags = {256: 8, 257: 4, 258: bits, 259: 1, 262: 1, 277: 1, 278: 2, 339: sample_format, 42113: value}
    got = decode(directory_file({**tags, 273: (0, 8), 279: (0, len(body))}, body))
    assert got.image.shape == (4, 8, 3)
    if value == "7":
        assert got.valid is not None
        assert not got.valid[:2].any()


# ---- which image ------------------------------------------------------------------------------------------------


def test_pages_are_counted_from_zero() -> None:
    pages = np.stack([np.full((8, 9), v, np.uint8) for v in (10, 20, 30)])
    data = tiff(pages, photometric="minisblack")
    assert [int(decode(data, page=n).image[0, 0, 0]) for n in range(3)] == [10, 20, 30]
    assert decode(data).pages == 3
    with pytest.raises(ImageError, match="3 page"):
        decode(data, page=3)


def written(*pages: tuple[np.ndarray, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for samples, options in pages:
            file.write(samples, **{"photometric": "rgb", "metadata": None, **options})
    return buffer.getvalue()


def test_thumbnails_are_no_pages() -> None:
    thumb = STREET[::4, ::4].copy()
    for data in (
        written((thumb, {"subfiletype": 1}), (STREET, {})),
        written((STREET, {}), (thumb, {"subfiletype": 1})),
        written((thumb, {"subfiletype": 1, "subifds": 1}), (STREET, {"subfiletype": 0})),
        written((thumb, {"extratags": [(255, 3, 1, 2, True)]}), (STREET, {})),
    ):
        got = decode(data)
        assert got.pages == 1
        assert (got.image == STREET).all()
    two = written((thumb, {"subfiletype": 1}), (STREET, {"subfiletype": 2}), (STREET[::-1].copy(), {"subfiletype": 2}))
    assert decode(two, page=1).pages == 2
    assert (decode(two, page=1).image == STREET[::-1]).all()
    assert (decode(written((thumb, {"subfiletype": 1}))).image == thumb).all()


def pyramid(subifds: bool) -> bytes:
    big = np.asarray(textured(256, 320))
    levels = [np.asarray(Image.fromarray(big).resize((320 // n, 256 // n), Image.Resampling.BOX)) for n in (2, 4)]
    first = {"tile": (64, 64), **({"subifds": 2} if subifds else {})}
    return written((big, first), *((level, {"tile": (64, 64), "subfiletype": 1}) for level in levels))


@pytest.mark.parametrize("subifds", [True, False])
def test_the_smallest_level_that_suffices(subifds: bool) -> None:
    data = pyramid(subifds)
    for enough, size in (
        ((60, 60), (64, 80)),
        ((65, 60), (128, 160)),
        ((129, 10), (256, 320)),
        ((999, 999), (256, 320)),
    ):
        found = inspect(data, choice=Choice(enough=lambda whole, enough=enough: enough))
        got = found.decode()
        assert found.size == got.size == (256, 320)
        assert got.image.shape[:2] == size
        assert bool(got.warnings) == (size != (256, 320))
    assert inspect(data).decode().image.shape[:2] == (256, 320)
    assert inspect(data, choice=Choice(level=2)).decode().size == (64, 80)
    with pytest.raises(ImageError, match="2 smaller"):
        inspect(data, choice=Choice(level=3))


def test_a_slides_levels_lie_behind_its_thumbnail() -> None:
    big = np.asarray(textured(256, 320))
    half, quarter = big[::2, ::2].copy(), big[::4, ::4].copy()
    label = np.asarray(textured(50, 90))
    data = written(
        (big, {"tile": (64, 64)}), (big[::5, ::5].copy(), {}), (half, {"tile": (64, 64)}),
        (quarter, {"tile": (64, 64)}), (label, {"subfiletype": 1}),
    )  # fmt: skip
    assert decode(data).pages == 1
    assert (inspect(data, choice=Choice(level=1)).decode().image == half).all()
    assert (inspect(data, choice=Choice(enough=lambda size: (60, 60))).decode().image == quarter).all()


def test_a_pyramid_of_channels_has_levels_of_them() -> None:
    stack = np.stack([np.asarray(textured(256, 320))[..., i] for i in range(3)])
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as file:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (64, 64)}
        file.write(stack, subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(stack[:, ::2, ::2].copy(), subfiletype=1, **options)
    got = inspect(buffer.getvalue(), choice=Choice(enough=lambda size: (100, 100))).decode()
    assert got.size == (256, 320)
    assert (got.image == np.moveaxis(stack[:, ::2, ::2], 0, 2)).all()


def test_beyond_the_limit_the_file_says_what_would_do() -> None:
    with pytest.raises(ImageTooLarge, match=r"level 1 of this pyramid, 160×128, fits: pyramid=1"):
        decode(pyramid(False), limits=Limits(max_mpx=0.03))
    with pytest.raises(ImageTooLarge, match="page 1, 64×48, fits: page=1"):
        decode(written((np.asarray(textured(200, 220)), {}), (STREET, {})), limits=Limits(max_mpx=0.03))


@pytest.mark.parametrize("writer", ["ome", "imagej"])
def test_channels_are_colors_and_said(writer: str) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (2, 4, 48, 64)).astype(np.uint8)  # two planes of four channels
    buffer = io.BytesIO()
    if writer == "ome":
        tifffile.imwrite(buffer, stack, ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack")
    else:
        tifffile.imwrite(buffer, stack, imagej=True, metadata={"axes": "ZCYX"})
    got = decode(buffer.getvalue(), page=1)
    assert got.pages == 2
    assert (got.image == np.moveaxis(stack[1, :3], 0, 2)).all()
    assert "channels 1, 2, 3 are shown as red, green and blue; left out: 4" in got.warnings[0]
    assert (decode(buffer.getvalue(), bands=(4,)).image == rgb(stack[0, 3])).all()


# ---- bounds -----------------------------------------------------------------------------------------------------


def test_what_claims_too_much_is_refused_before_it_is_read() -> None:
    import imagecodecs

    body = imagecodecs.zlib_encode(bytes(2 * 8 * 8))
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 278: 8}
    assert decode(directory_file({**tags, 278: 16}, imagecodecs.zlib_encode(bytes(64)))).image.shape == (8, 8, 3)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(directory_file(tags, body))  # twice what the strip has room for
    with pytest.raises(ImageError, match="tiles of 4096×4096 in 8×8"):
        decode(directory_file({k: v for k, v in tags.items() if k != 278} | {322: 4096, 323: 4096}, body))
    large = packed(Image.new("L", (64, 64)), "JPEG")
    with pytest.raises(ImageError, match="8×8 pixels says that it has 64×64"):
        decode(directory_file({**tags, 259: 7}, large))
    strips = {**tags, 256: 1, 257: 66000, 259: 1, 278: 1, 273: (8,) * 66000}
    with pytest.raises(ImageTooLarge, match="66000 pieces"):
        decode(directory_file(strips, bytes(8)), limits=Limits(max_side_px=10**6))
    with pytest.raises(ImageTooLarge, match="8 bytes a pixel"):
        decode(directory_file({**tags, 256: 3000, 257: 3000, 277: 99}, body), limits=Limits(max_mpx=10))


def test_damage_is_told_in_our_words() -> None:
    whole = tiff(STREET, photometric="rgb", compression="zlib", rowsperstrip=8)
    for cut in range(0, len(whole), len(whole) // 23):
        with pytest.raises(ImageError) as refused:
            decode(whole[:cut])
        assert "0x" not in str(refused.value)
        assert len(str(refused.value)) > 20
    looped = bytearray(tiff(STREET[..., 0], photometric="minisblack"))
    (at,) = struct.unpack_from("<I", looped, 4)
    (count,) = struct.unpack_from("<H", looped, at)
    struct.pack_into("<I", looped, at + 2 + 12 * count, at)  # the next directory is this one
    assert decode(bytes(looped)).pages == 1


@pytest.mark.parametrize("number", [2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("where", ["first directory", "entries", "next directory"])
def test_a_bigtiff_may_point_anywhere(number: int, where: str) -> None:
    whole = bytearray(tiff(STREET[..., 0], photometric="minisblack", bigtiff=True))
    (at,) = struct.unpack_from("<Q", whole, 8)
    (count,) = struct.unpack_from("<Q", whole, at)
    place = {"first directory": 8, "entries": at, "next directory": at + 8 + 20 * count}[where]
    struct.pack_into("<Q", whole, place, number)
    if where == "next directory":  # what lies beyond the end is no page
        assert decode(bytes(whole)).pages == 1
    else:
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(bytes(whole))


def test_tags_that_claim_anything_are_refused() -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8}
    with pytest.raises(ImageError, match="70000 samples"):
        decode(directory_file({**tags, 277: 70000}, bytes(64)))
    assert decode(directory_file({**tags, 262: 6, 277: 3, 258: (8, 8, 8), 530: 1}, bytes(192))).image.shape == (8, 8, 3)
    beyond = np.array([[1e300, 5.0], [-1e300, 7.0]])
    got = decode(tiff(np.tile(beyond, (4, 4))), depth="minmax")
    assert got.valid is not None
    assert (got.depth_rule, got.valid.mean()) == ("minmax: 5..7 → 0..255", 0.5)


def test_working_bytes_are_what_is_held() -> None:
    sixteen = inspect(tiff(np.zeros((1000, 1000, 3), np.uint16), photometric="rgb", rowsperstrip=10))
    assert 6e6 < sixteen.working_bytes < 12e6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_nan_leaves_a_white_is_zero_picture_as_it_is(dtype: type) -> None:
    slope = np.linspace(0, 1, 24 * 36).reshape(24, 36).astype(dtype)
    slope[3, 4] = np.nan
    got = decode(tiff(slope, photometric="miniswhite"))
    assert got.valid is not None
    assert (got.valid == np.isfinite(slope)).all()
    assert (got.image[0, 0] == 255).all()
    assert (got.image[-1, -1] == 0).all()
    assert (got.image[3, 4] == 0).all()
    assert "→ 255..0" in (got.depth_rule or "")
