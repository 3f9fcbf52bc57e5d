"""Bytes to pixels, and pixels to the size a network wants and back.

Knows nothing of clusters, of networks, of HTTP. Sizes are (H, W) everywhere; Pillow's (W, H) stays in
this file. Every limit is judged from the header, before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from models import jpeg, png
from models.errors import TesseraError

Array = NDArray[Any]
Depth = Literal["percentile", "minmax", "full"]
Box = tuple[float, float, float, float]  # top, left, height, width: fractions of the fitted image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # and TIFF, by tifffile
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
Image.MAX_IMAGE_PIXELS = None  # our own limit stands before every decode, and is lower


class ImageError(TesseraError):
    """Bytes that are no image we can read: empty, truncated, damaged."""


class ImageTooLarge(ImageError):
    """More bytes or pixels than the limits allow."""


class UnsupportedImage(ImageError):
    """An intact file of a kind we do not open."""


@dataclass(frozen=True)
class Limits:
    """What `decode` accepts: bytes, megapixels, longest side in pixels."""

    max_bytes: int = 32 * 2**20
    max_mpx: float = 50.0
    max_side_px: int = 32768

    def check_bytes(self, count: int) -> None:
        """Raises ImageTooLarge when a file has more bytes than allowed."""
        if count > self.max_bytes:
            raise ImageTooLarge(
                f"the image has {count / 2**20:.1f} MiB; the limit is {self.max_bytes / 2**20:.0f} MiB"
                " (TESSERA_MAX_BYTES)"
            )

    def check_size(self, height: int, width: int) -> None:
        """Raises ImageTooLarge, or ImageError for an empty image, from the header's size."""
        if height < 1 or width < 1:
            raise ImageError(f"the header says {width}×{height} pixels: there is nothing to segment")
        mpx = height * width / 1e6
        if mpx > self.max_mpx:
            raise ImageTooLarge(
                f"{width}×{height} is {mpx:.1f} Mpx; the limit is {self.max_mpx:g} Mpx (TESSERA_MAX_MPX):"
                " send a smaller image"
            )
        if max(height, width) > self.max_side_px:
            raise ImageTooLarge(
                f"{width}×{height}: the longest side allowed is {self.max_side_px} pixels:"
                " send a smaller image or cut it"
            )


@dataclass(frozen=True)
class Decoded:
    """An image as a viewer shows it.

    image       RGB uint8 [H, W, 3], orientation applied
    depth_rule  how deeper than 8-bit samples were mapped to 8 bits, None when they were 8-bit
    pages       how many pages the file has
    """

    image: Array
    depth_rule: str | None = None
    pages: int = 1


def decode(data: bytes, *, limits: Limits | None = None, depth: Depth = "percentile", page: int = 0) -> Decoded:
    """The image in a file's bytes: RGB uint8 [H, W, 3], turned as a viewer shows it.

    depth  how 16-bit, 32-bit and float samples become 8 bits: `percentile` (2–98 over the image),
           `minmax`, or `full` (the type's whole range; floats: 0..1)
    page   page of a multi-page TIFF; GIF and animated WebP or PNG give their first frame

    Raises ImageError (unreadable), ImageTooLarge, UnsupportedImage.
    """
    limits = limits or Limits()
    if not data:
        raise ImageError("the image is empty: 0 bytes arrived")
    limits.check_bytes(len(data))
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(data, limits, depth, page)
    if page:
        raise ImageError(f"page {page}: only TIFF files have pages; leave `page` out")
    if header := jpeg.plain_header(data):
        limits.check_size(header.height, header.width)
        if (pixels := jpeg.decode(data, header)) is not None:
            return Decoded(pixels)
    return _decode_pillow(data, limits, depth)


def load(path: Path | str, *, limits: Limits | None = None, depth: Depth = "percentile") -> Decoded:
    """`decode` of a file on disk. Raises the same, and OSError."""
    return decode(Path(path).read_bytes(), limits=limits, depth=depth)


def _decode_pillow(data: bytes, limits: Limits, depth: Depth) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata we do not use
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                limits.check_size(opened.height, opened.width)
                if opened.format == "PNG" and _png_is_16_bit(data):
                    return _finish(_png16(data), depth, _orientation(opened))
                opened.load()
                upright = _turn(np.asarray(_to_rgb(opened)), _orientation(opened))
                return Decoded(np.ascontiguousarray(upright))
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise _unknown(data) from None
        except Exception as error:  # Pillow's plugins raise what their parsers meet: OSError, struct.error …
            raise ImageError(f"the image is damaged or truncated: {_reason(error)}") from None


def _unknown(data: bytes) -> ImageError:
    kinds = {
        b"%PDF": "a PDF", b"<svg": "an SVG", b"<?xm": "XML", b"PK\3\4": "a ZIP archive", b"<!DO": "HTML",
        b"SIMP": "FITS", b"%!PS": "PostScript", b"8BPS": "a Photoshop file", b"\0\0\0\x0c": "JPEG 2000",
    }  # fmt: skip
    if kind := kinds.get(data[:4]):
        return UnsupportedImage(f"this is {kind}; send JPEG, PNG, WebP, BMP, GIF or TIFF")
    if data[4:8] == b"ftyp":
        return UnsupportedImage("HEIC, AVIF and video are not opened; send JPEG, PNG, WebP, BMP, GIF or TIFF")
    return ImageError("these bytes are not an image; send JPEG, PNG, WebP, BMP, GIF or TIFF")


def _reason(error: Exception) -> str:
    """A library's message with nothing in it that names our memory or our disk."""
    text = str(error).split("\n")[0]
    return type(error).__name__ if not text or "0x" in text or "/" in text else text[:160]


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any 8-bit mode as RGB; what is transparent is shown on white, as a viewer's page would."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _png_is_16_bit(data: bytes) -> bool:
    return len(data) > 24 and data[12:16] == b"IHDR" and data[24] == 16


def _png16(data: bytes) -> Array:
    # Pillow cuts 16-bit RGB to its high byte and saturates 16-bit gray; imagecodecs keeps the samples.
    from imagecodecs import png_decode

    samples: Array = png_decode(data)
    return samples


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(0x0112, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_tiff(data: bytes, limits: Limits, depth: Depth, page: int) -> Decoded:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = file.pages
            if page:
                count = len(pages)  # walks the chain of directories, at most the file's own length
                if page >= count:
                    raise ImageError(f"page {page}: this file has {count} page(s), counted from 0")
            tiff = pages[page]
            if not isinstance(tiff, tifffile.TiffPage):
                tiff = tiff.aspage()
            limits.check_size(tiff.imagelength, tiff.imagewidth)
            if tiff.imagedepth > 1:
                raise UnsupportedImage("volumetric TIFF pages are not opened; send one plane")
            per_pixel = tiff.samplesperpixel * np.dtype(tiff.dtype).itemsize
            if tiff.imagelength * tiff.imagewidth * per_pixel > 8 * limits.max_mpx * 1e6:
                raise ImageTooLarge(
                    f"{tiff.imagewidth}×{tiff.imagelength} with {tiff.samplesperpixel} samples of"
                    f" {np.dtype(tiff.dtype).itemsize} bytes is more than the limit of 8 bytes a pixel at"
                    f" {limits.max_mpx:g} Mpx: send fewer bands or a smaller image"
                )
            samples = _tiff_samples(tiff)
            orientation = int(getattr(tiff.tags.get("Orientation"), "value", 1) or 1)
            photometric = int(tiff.photometric)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises what its many parsers meet
        raise ImageError(f"the TIFF is damaged or uses what we cannot read: {_reason(error)}") from None
    if photometric == 0:  # white is zero
        samples = samples.max() - samples if samples.dtype.kind == "f" else ~samples
    if photometric == 5 and samples.ndim == 3 and samples.shape[2] >= 4:  # separated: CMYK
        if samples.dtype != np.uint8:
            raise UnsupportedImage("CMYK TIFF is opened at 8 bits a sample only")
        rgb = Image.fromarray(np.ascontiguousarray(samples[..., :4]), "CMYK").convert("RGB")
        samples = np.asarray(rgb)
    return _finish(samples, depth, orientation)


def _tiff_samples(page: Any) -> Array:
    """Samples of one page: [H, W] or [H, W, bands]; palettes looked up, chroma decoded."""
    samples: Array = np.asarray(page.asarray())
    if int(page.photometric) == 3 and page.colormap is not None:
        samples = (np.asarray(page.colormap)[:, samples] >> 8).astype(np.uint8).transpose(1, 2, 0)
    elif samples.ndim == 3 and int(page.planarconfig) == 2:  # bands first on disk
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim not in (2, 3):
        raise UnsupportedImage(f"a page with {samples.ndim} dimensions is not an image")
    return samples.astype(np.uint8) * 255 if samples.dtype == bool else samples


def _finish(samples: Array, depth: Depth, orientation: int) -> Decoded:
    """Samples of any depth and band count as an upright RGB image."""
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    rgb = samples if samples.ndim == 3 else samples[..., None]
    alpha = rgb[..., 3] if bands == 4 else rgb[..., 1] if bands == 2 else None
    rgb = rgb[..., :3] if bands >= 3 else rgb[..., :1]
    image, rule = to_8_bit(rgb, depth)
    if alpha is not None and alpha.dtype.kind == "u":
        opacity = (alpha.astype(np.float32) / np.iinfo(alpha.dtype).max)[..., None]
        image = np.rint(image * opacity + 255 * (1 - opacity)).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    return Decoded(np.ascontiguousarray(_turn(image, orientation)), rule)


def _turn(image: Array, orientation: int) -> Array:
    """The image as EXIF orientation 1..8 says a viewer shows it."""
    if orientation in (2, 4, 5, 7):
        image = image[:, ::-1]
    quarter_turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.rot90(image, quarter_turns)


def to_8_bit(samples: Array, depth: Depth) -> tuple[Array, str | None]:
    """Samples of any numeric type as uint8, and the rule that was used (None for 8-bit samples).

    Values that are not finite count as the lowest one.
    """
    if samples.dtype == np.uint8:
        return samples, None
    if samples.dtype.kind not in "uif":
        raise UnsupportedImage(f"samples of type {samples.dtype} are not opened; send integers or floats")
    values = samples.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("no sample of this image is finite")
    if depth == "full" and samples.dtype.kind in "ui":
        low, high = float(np.iinfo(samples.dtype).min), float(np.iinfo(samples.dtype).max)
    elif depth == "full":
        low, high = 0.0, 1.0
    elif depth == "minmax":
        low, high = float(values[finite].min()), float(values[finite].max())
    else:
        low, high = (float(v) for v in np.percentile(values[finite], (2, 98)))
        if high <= low:  # a nearly constant image still has its extremes
            low, high = float(values[finite].min()), float(values[finite].max())
    values = np.where(finite, values, low)
    scale = 255.0 / (high - low) if high > low else 0.0
    name = "percentile 2–98" if depth == "percentile" else depth
    return np.rint(np.clip((values - low) * scale, 0, 255)).astype(np.uint8), f"{name}: {low:g}..{high:g} → 0..255"


class InputSpec(BaseModel):
    """How an image becomes the network's input; part of the manifest.

    size         (H, W) in pixels
    resize       short_side: the short side becomes min(size), aspect kept, any size that is a multiple of
                 `multiple`; letterbox: aspect kept inside exactly `size`, the rest repeats the border;
                 stretch: exactly `size`
    max_side_px  the long side never exceeds this; beyond it the aspect gives way
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    resize: Literal["short_side", "letterbox", "stretch"] = "short_side"
    multiple: int = Field(8, ge=1)
    max_side_px: int = Field(2048, ge=1)


@dataclass(frozen=True)
class Fit:
    """An image at the network's size, with what is needed to find the way back.

    pixels  uint8 [h_in, w_in, 3]
    source  (H, W) of the image it was made from
    box     the part of `pixels` the source fills: top, left, height, width as fractions
    """

    pixels: Array
    source: tuple[int, int]
    box: Box = WHOLE


def fitted_size(source: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """The (H, W) an image of size `source` gets under `spec`, without touching a pixel."""
    if spec.resize != "short_side":
        return spec.size
    scale = min(spec.size) / min(source)

    def side(length: int) -> int:
        wanted = min(length * scale, spec.max_side_px)
        return max(spec.multiple, round(wanted / spec.multiple) * spec.multiple)

    return side(source[0]), side(source[1])


def fit(image: Array, spec: InputSpec) -> Fit:
    """The image at the size the network wants (bilinear, antialiased).

    image  RGB uint8 [H, W, 3]
    """
    source = (int(image.shape[0]), int(image.shape[1]))
    height, width = fitted_size(source, spec)
    if spec.resize != "letterbox":
        return Fit(resize(image, (height, width)), source)
    scale = min(height / source[0], width / source[1])
    inner = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    pads = ((top, height - inner[0] - top), (left, width - inner[1] - left), (0, 0))
    pixels = np.pad(resize(image, inner), pads, mode="edge")
    return Fit(pixels, source, (top / height, left / width, inner[0] / height, inner[1] / width))


def resize(image: Array, size: tuple[int, int]) -> Array:
    """A uint8 image [H, W, 3] or map [H, W] at another size (H, W), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def encode(image: Array, kind: Literal["png", "jpeg", "webp"], quality: int = 90) -> bytes:
    """A file's bytes: RGB or RGBA uint8 [H, W, 3|4], or gray [H, W]; JPEG takes no alpha."""
    if kind == "jpeg":  # colors at full resolution: a cluster's ends where the cluster ends
        return jpeg.encode(np.ascontiguousarray(image), quality)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 3} if kind == "png" else {"quality": quality}
    Image.fromarray(image).save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def encode_labels(labels: Array, colors: Array) -> bytes:
    """A palette PNG: mode P, the value of a pixel is its cluster id.

    labels  uint8 [H, W];  colors  uint8 [K, 3]
    """
    return png.encode_palette(labels, colors)
