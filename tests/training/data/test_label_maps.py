"""Every way of storing a label map that people have, drawn here byte by byte, holds the values it was drawn with."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from training.data.errors import DataError
from training.data.label_maps import Colors, read_labels

BINARY, FOUR, SIXTEEN = (np.random.default_rng(n).integers(0, n, (7, 13)).astype(np.uint8) for n in (2, 4, 16))
BYTES = np.array([[0, 1, 7, 40], [7, 255, 2, 254]], np.uint8)
OF_BITS = {1: BINARY, 2: FOUR, 4: SIXTEEN, 8: BYTES}
ODD = [((91 * i) % 256, (7 * i + 3) % 256, 255 - i) for i in range(256)]  # a palette that says nothing of the index
GRAYS = [(i, i, i) for i in range(256)]
TEMPLATE = [(255 * i, 255 * i, 255 * i) for i in range(2)]


def packed(values: np.ndarray, bits: int, *, row_bytes: int = 1) -> list[bytes]:
    """Rows with so many bits a pixel, the first pixel highest, filled up to a multiple of bytes."""
    rows = []
    for row in values.tolist():
        written = "".join(format(value, f"0{bits}b") for value in row)
        written += "0" * (-len(written) % (8 * row_bytes))
        rows.append(int(written, 2).to_bytes(len(written) // 8, "big"))
    return rows


def png(
    path: Path, size: tuple[int, ...], rows: Sequence[bytes], bits: int, kind: int, *chunks: tuple[bytes, bytes]
) -> Path:
    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def bmp(path: Path, values: np.ndarray, bits: int, palette: Sequence[tuple[int, ...]], *, upside: bool = True) -> Path:
    rows = packed(values, bits, row_bytes=4)
    colors = b"".join(bytes((b, g, r, 0)) for r, g, b in palette)
    start, height = 54 + len(colors), values.shape[0] if upside else -values.shape[0]
    body = b"".join(rows[::-1] if upside else rows)
    header = struct.pack("<IiiHHIIiiII", 40, values.shape[1], height, 1, bits, 0, len(body), 0, 0, len(palette), 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + colors + body)
    return path


def tiff(path: Path, values: np.ndarray, bits: int, photometric: int, palette: Sequence[tuple[int, ...]] = ()) -> Path:
    """One strip, big-endian."""
    data = b"".join(packed(values, bits))
    colors = b"".join(
        struct.pack(f">{len(band)}H", *(257 * one for one in band)) for band in zip(*palette, strict=True)
    )
    tags = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
            278: values.shape[0], 279: len(data)}  # fmt: skip
    data += b"\0" * (len(data) % 2)
    directory = [struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items()]
    if palette:
        directory.append(struct.pack(">HHII", 320, 3, 3 * len(palette), 8 + len(data)))
    head = b"MM\0*" + struct.pack(">I", 8 + len(data) + len(colors))
    path.write_bytes(head + data + colors + struct.pack(">H", len(directory)) + b"".join(directory) + b"\0\0\0\0")
    return path


def held(path: Path, wanted: np.ndarray, colors: Colors | None = None) -> None:
    found = read_labels(path, colors)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == (np.uint8 if wanted.min() >= 0 and wanted.max() < 256 else np.int64)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grays_of_few_bits_are_not_scaled(bits: int, tmp_path: Path) -> None:
    values = OF_BITS[bits]
    held(png(tmp_path / "a.png", values.shape, packed(values, bits), bits, 0), values)
    for photometric in (0, 1):  # min-is-white and min-is-black: what is stored is the value
        held(tiff(tmp_path / f"{photometric}.tif", values, bits, photometric), values)
        name = ("miniswhite", "minisblack")[photometric]
        drawn = values.astype(bool) if bits == 1 else values
        tifffile.imwrite(tmp_path / "b.tif", drawn, photometric=name, bitspersample=bits)
        held(tmp_path / "b.tif", values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colors", [ODD, GRAYS, TEMPLATE, TEMPLATE[::-1]], ids=["odd", "gray", "two", "white first"])
def test_of_a_palette_the_index_is_the_value(bits: int, colors: list, tmp_path: Path) -> None:
    values, palette = OF_BITS[bits], colors[: 2**bits]
    if len(palette) == 2:
        values = values % 2  # an 8-bit file of two colors, too
    plte = (b"PLTE", bytes(sum(palette, ())))
    held(png(tmp_path / "a.png", values.shape, packed(values, bits), bits, 3, plte), values)
    held(bmp(tmp_path / "a.bmp", values, bits, palette), values)
    held(bmp(tmp_path / "b.bmp", values, bits, palette, upside=False), values)
    whole = [*palette, *[(0, 0, 0)] * (2**bits - len(palette))]
    held(tiff(tmp_path / "a.tif", values, bits, 3, whole), values)


def test_palettes_as_pillow_and_tifffile_write_them(tmp_path: Path) -> None:
    drawn = Image.fromarray(BYTES)
    drawn.putpalette(sum(ODD, ()))
    for suffix in ("png", "bmp", "tif"):
        drawn.save(tmp_path / f"a.{suffix}")
        held(tmp_path / f"a.{suffix}", BYTES)
    drawn.save(tmp_path / "clear.png", transparency=7)  # a class that is not drawn is still one
    held(tmp_path / "clear.png", BYTES)
    table = np.array(ODD, np.uint16).T * 257
    tifffile.imwrite(tmp_path / "b.tif", BYTES, photometric="palette", colormap=table, compression="lzw")
    held(tmp_path / "b.tif", BYTES)
    Image.fromarray(BINARY > 0).save(tmp_path / "bits.png")
    held(tmp_path / "bits.png", BINARY)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize(
    "layout",
    [{}, {"tile": (16, 16)}, {"rowsperstrip": 1, "compression": "lzw"}, {"tile": (16, 32), "compression": "zlib"},
     {"compression": "zstd"}, {"bigtiff": True}],
    ids=["plain", "tiled", "lzw strips", "deflate tiles", "zstd", "big"],
)  # fmt: skip
def test_deep_tiffs_are_read_by_value(order: str, kind: str, layout: dict, tmp_path: Path) -> None:
    values = np.arange(37 * 41).reshape(37, 41) % 256
    tifffile.imwrite(tmp_path / "a.tif", values.astype(order + kind), byteorder=order, **layout)
    held(tmp_path / "a.tif", values)


def test_predictors_and_further_pages_change_nothing(tmp_path: Path) -> None:
    values = (np.arange(600).reshape(20, 30) % 200).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", predictor=True)
    held(tmp_path / "a.tif", values)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(values, subifds=1)
        file.write(values[::2, ::2], subfiletype=1)
        file.write(values[::4, ::4], subfiletype=1)
    held(tmp_path / "pyramid.tif", values)


def test_deep_pngs_are_read_by_value(tmp_path: Path) -> None:
    rows = [struct.pack(">4H", *row) for row in BYTES.tolist()]
    held(png(tmp_path / "a.png", BYTES.shape, rows, 16, 0), BYTES)


@pytest.mark.parametrize(("kind", "stray"), [("u2", 65535), ("u2", 1000), ("i2", -1), ("i4", -1), ("u4", 2**32 - 1)])
def test_values_beyond_a_byte_are_kept_for_whoever_knows_them(kind: str, stray: int, tmp_path: Path) -> None:
    values = BYTES.astype(np.int64)
    values[0, 0] = stray
    tifffile.imwrite(tmp_path / "a.tif", values.astype(kind))
    held(tmp_path / "a.tif", values)


def test_a_map_is_turned_as_its_photo_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=exif)
    held(tmp_path / "a.png", np.rot90(BYTES, -1))
    tifffile.imwrite(tmp_path / "a.tif", BYTES, extratags=[(274, "H", 1, 3, True)])
    held(tmp_path / "a.tif", BYTES[::-1, ::-1])


COLORS = Colors({(0, 0, 0): 0, (128, 64, 0): 5, (128, 64, 1): 300})


def test_colors_are_values_by_a_table(tmp_path: Path) -> None:
    values = np.array([[0, 5, 0], [5, 5, 0]])
    rgb = np.where(values[..., None] == 5, (128, 64, 0), 0).astype(np.uint8)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(rgb).save(tmp_path / f"a.{suffix}")
        held(tmp_path / f"a.{suffix}", values, COLORS)
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="rgb", planarconfig="separate")
    held(tmp_path / "b.tif", values, COLORS)
    rgb[0, 0] = 128, 64, 1
    Image.fromarray(rgb).save(tmp_path / "a.png")
    held(tmp_path / "a.png", np.array([[300, 5, 0], [5, 5, 0]]), COLORS)
    rgb[0, 0] = 9, 8, 7
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the color 9,8,7 is none of --classes \(16\.7% of its pixels"):
        read_labels(tmp_path / "a.png", COLORS)


def test_of_a_palette_the_color_is_the_value_where_the_table_has_nothing_else(tmp_path: Path) -> None:
    drawn = Image.fromarray(BINARY)
    drawn.putpalette([128, 64, 0, 0, 0, 0])  # renumbered: 5 became index 0
    for name in ("a.png", "a.bmp", "a.tif"):
        drawn.save(tmp_path / name)
        held(tmp_path / name, np.where(BINARY, 0, 5), COLORS)
        held(tmp_path / name, BINARY, Colors(COLORS.values, palettes=False))
    held(png(tmp_path / "gray.png", BINARY.shape, packed(BINARY, 1), 1, 0), BINARY, COLORS)  # gray has no colors


def test_what_holds_no_numbers_of_classes_is_refused(tmp_path: Path) -> None:
    def refused(name: str, reason: str, colors: Colors | None = None) -> None:
        with pytest.raises(DataError, match=rf"{name.replace('.', '[.]')}: {reason}.* PNG \(mode L or P\)"):
            read_labels(tmp_path / name, colors)

    zeros = np.zeros((4, 4, 4), np.uint8)
    for mode, bands in {"LA": 2, "RGBA": 4}.items():
        Image.fromarray(zeros[..., :bands], mode).save(tmp_path / f"{mode}.png")
        refused(f"{mode}.png", f"mode {mode}; a label map has one byte a pixel", COLORS)
        Image.fromarray(zeros[..., :bands], mode).save(tmp_path / f"{mode}.tif")
        refused(f"{mode}.tif", f"uint8 with {bands} bands; a label map has one byte a pixel")
    Image.fromarray(zeros, "CMYK").save(tmp_path / "c.tif")
    refused("c.tif", "CMYK; a label map")
    gray = Image.fromarray(zeros[..., 0])
    gray.save(tmp_path / "a.jpg"), gray.save(tmp_path / "named.png", "JPEG"), gray.save(tmp_path / "a.gif")
    gray.convert("RGB").save(tmp_path / "a.webp", lossless=True), gray.save(tmp_path / "a.pgm")
    refused("a.jpg", "it is a JPEG, which changes values")
    refused("named.png", "it is a JPEG, which changes values")
    refused("a.gif", "it is a GIF: its writers renumber the palette")
    refused("a.webp", "it is a WebP")
    refused("a.pgm", "it is a file of format PPM")
    tifffile.imwrite(tmp_path / "j.tif", np.zeros((16, 16), np.uint8), compression="jpeg")
    refused("j.tif", "a TIFF compressed as JPEG")
    png(tmp_path / "deep.png", (1, 2), [bytes(12)], 16, 2)
    refused("deep.png", "mode RGB of 16 bits", COLORS)
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 4, 3), np.uint16), photometric="rgb")
    refused("deep.tif", "uint16 with 3 bands", COLORS)
    for number, value in enumerate((0.5, np.nan, np.inf, -3.4e38)):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.full((4, 4), value, np.float32))
        refused(f"{number}.tif", "it holds .* which is no class's number")
    gray.save(tmp_path / "cut.png")
    for name in ("cut.png", "c.tif"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "c.tif", "empty.png", "absent.png"):
        with pytest.raises(DataError, match=rf"{name}: the label map cannot be read"):
            read_labels(tmp_path / name)


def test_colors_without_a_table_say_which_option_takes_one(tmp_path: Path) -> None:
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "SegmentationClass" / "a.png")
    with pytest.raises(DataError, match=r"mode RGB; .* where its colors are classes: --classes FILE"):
        read_labels(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "labelmap.txt").touch()
    with pytest.raises(DataError, match=rf"--classes {tmp_path}/labelmap\.txt"):
        read_labels(tmp_path / "SegmentationClass" / "a.png")
