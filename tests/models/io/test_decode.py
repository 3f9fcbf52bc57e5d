"""Bytes in every guise a person sends them in, and the way to the network's size and back."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from imagecodecs import jpeg8_encode, png_encode
from PIL import Image, ImageOps

from models.io import jpeg
from models.io.decode import decode
from models.io.encode import encode, encode_labels
from models.io.samples import ImageError, ImageTooLarge, Limits, UnsupportedImage, to_8_bit
from models.preprocess import InputSpec, fit, fitted_size

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_to_the_pixel(kind: str) -> None:
    assert (decode(packed(Image.fromarray(PHOTO), kind)).image == PHOTO).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_back_close(kind: str) -> None:
    flat = np.full((24, 36, 3), (200, 60, 30), np.uint8)
    assert np.abs(decode(packed(Image.fromarray(flat), kind)).image.astype(int) - flat).max() < 12


MODES = {"PNG": "1 L P RGB RGBA LA", "TIFF": "1 L P RGB RGBA LA CMYK", "JPEG": "1 L RGB CMYK"}


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


def test_floats_and_what_is_not_finite() -> None:
    values = RNG.random((24, 36)).astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    got = decode(tiff(values), depth="full").image
    assert got[0, 0, 0] == 0
    assert np.abs(got[5:, 5:, 0] - values[5:, 5:] * 255).max() <= 0.51
    with pytest.raises(ImageError, match="finite"):
        to_8_bit(np.full((2, 2), np.nan), "percentile")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    got = decode(tiff(PHOTO, compression=compression, photometric="rgb")).image
    assert got.shape == PHOTO.shape


def test_many_bands_and_many_pages() -> None:
    bands = RNG.integers(0, 4000, (6, 24, 36)).astype(np.uint16)
    assert decode(tiff(bands, planarconfig="separate", photometric="minisblack")).image.shape == (24, 36, 3)
    pages = np.stack([np.full((8, 9), v, np.uint8) for v in (10, 20, 30)])
    data = tiff(pages, photometric="minisblack")
    assert [int(decode(data, page=n).image[0, 0, 0]) for n in range(3)] == [10, 20, 30]
    with pytest.raises(ImageError, match="3 page"):
        decode(data, page=3)
    with pytest.raises(ImageError, match="only TIFF"):
        decode(packed(Image.fromarray(PHOTO), "PNG"), page=1)


def test_one_pixel_is_an_image() -> None:
    assert decode(packed(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).image.tolist() == [[[1, 2, 3]]]


def test_truncated_files_are_refused_at_every_length() -> None:
    whole = packed(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
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
        (b"\0\0\0\x20ftypheic" + bytes(40), UnsupportedImage),
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


def test_short_side_keeps_the_aspect_and_the_multiple() -> None:
    spec = InputSpec(size=(320, 320), multiple=8)
    assert fitted_size((360, 480), spec) == (320, 424)
    assert fitted_size((1, 1), spec) == (320, 320)
    assert fitted_size((20000, 1), spec) == (2048, 320)
    assert fitted_size((1, 20000), spec) == (320, 2048)


def test_letterbox_remembers_where_the_image_lies() -> None:
    spec = InputSpec(size=(64, 64), resize="letterbox")
    wide = np.zeros((50, 100, 3), np.uint8)
    wide[:, :50] = 255
    fitted = fit(wide, spec)
    assert fitted.pixels.shape == (64, 64, 3)
    assert fitted.box == (0.25, 0.0, 0.5, 1.0)
    assert (fitted.pixels[:, :30] == 255).all()
    assert (fitted.pixels[:, 34:] == 0).all()
    assert fit(wide, InputSpec(size=(32, 40), resize="stretch")).pixels.shape == (32, 40, 3)


def as_pillow_sees_it(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened.convert("RGB")))


def textured(height: int, width: int) -> Image.Image:
    """Edges, slopes and noise: what tells one upsampling of colors from another."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * 7 + y * 3) % 256, ((x // 5 + y // 3) % 2) * 200, RNG.integers(0, 256, (height, width))]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


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
            assert header == (*size, len(picture.getbands()))
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


def test_jpegs_are_written_as_pillow_writes_them() -> None:
    photo = textured(45, 70)
    for quality in (75, 90):
        assert encode(np.asarray(photo), "jpeg", quality) == packed(photo, "JPEG", quality=quality, subsampling=0)
    gray = np.asarray(photo.convert("L"))
    assert np.abs(decode(encode(gray, "jpeg")).image.astype(int) - gray[..., None]).max() < 60
    with pytest.raises(ValueError, match="PNG"):
        encode(np.zeros((4, 4, 4), np.uint8), "jpeg")


def test_label_maps_are_palette_pngs() -> None:
    labels = RNG.integers(0, 5, (9, 11)).astype(np.uint8)
    colors = RNG.integers(0, 256, (5, 3), dtype=np.uint8)
    assert encode_labels(labels, colors)[25] == 3
    with Image.open(io.BytesIO(encode_labels(labels, colors))) as png:
        assert png.mode == "P"
        assert (np.asarray(png) == labels).all()
        assert (np.asarray(png.convert("RGB")) == colors[labels]).all()
    assert (decode(encode(PHOTO, "png")).image == PHOTO).all()
