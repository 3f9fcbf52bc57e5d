"""What TIFF samples mean: photometric × format × bits × colors → RGB, one row for each that is shown.

Knows nothing of files. `python -m models.io.photometric` prints the table as docs/formats.md has it.
Source: TIFF 6.0, sections 3 to 6, 16, 20 to 23; Adobe's technical notes (ICCLab); TIFF/EP and DNG for what is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.io import color
from models.io.samples import UnsupportedImage
from models.io.tiff_segments import Sample
from models.types import Array

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9


@dataclass(frozen=True)
class Context:
    """What the directory says beside the samples.

    bits       of a sample
    palette    uint16 [3, 2^bits];  profile  ICC, or None
    luma       weights of red and green in YCbCr's Y, and of blue
    reference  black and white of Y, Cb, Cr in levels
    """

    bits: int
    palette: Array | None = None
    profile: bytes | None = None
    luma: tuple[float, float, float] = (0.299, 0.587, 0.114)
    reference: tuple[float, ...] = (0, 255, 128, 255, 128, 255)


Convert = Callable[[Array, Context], Array]


class Meaning(NamedTuple):
    """One row.

    photometric, name  the tag's value and word
    format             of a sample: uint, int or float
    bits               of a sample, all that are opened
    colors             samples that make a color; of a gray picture's three bands or more, three are shown as RGB
    shown              in words
    convert            uint samples [rows, W, colors] to RGB uint8 [rows, W, 3] or gray [rows, W, 1]; None: the range
                       that `depth` names becomes 0..255
    """

    photometric: int
    name: str
    format: str
    bits: tuple[int, ...]
    colors: int
    shown: str
    convert: Convert | None


def _to_8(strip: Array, bits: int) -> Array:
    """Unsigned samples of so many bits as uint8: the whole range."""
    if bits == 8:
        return strip.astype(np.uint8, copy=False)
    most = 2**bits - 1
    if bits < 8:
        return np.asarray(np.rint(np.arange(256) * 255 / most).clip(0, 255).astype(np.uint8)[strip])
    return np.asarray(((strip.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8))


def _managed(samples: Array, profile: bytes | None) -> Array:
    """Gray or RGB uint8 [rows, W, 1 or 3] through its profile."""
    gray = samples.shape[2] == 1
    convert = color.converter(profile, "L" if gray else "RGB")
    return samples if convert is None else convert(samples[..., 0] if gray else samples)


def black_is_zero(strip: Array, context: Context) -> Array:
    """Gray or RGB of any unsigned type: the whole range, through the profile."""
    return _managed(_to_8(strip, context.bits), context.profile)


def white_is_zero(strip: Array, context: Context) -> Array:
    """The same for gray whose 0 is white."""
    return _managed(255 - _to_8(strip, context.bits), context.profile)


def _palette(strip: Array, context: Context) -> Array:
    colors = context.palette
    if colors is None or colors.size != 3 * 2**context.bits:
        raise UnsupportedImage("this palette TIFF has no complete color map; send it as RGB")
    eight = colors if colors.max() < 256 else colors >> 8  # some writers keep 8-bit values in its 16 bits
    table = eight.reshape(3, -1).T.astype(np.uint8)
    return _managed(table[strip[..., 0]], context.profile)


def _cmyk(strip: Array, context: Context) -> Array:
    inks = np.ascontiguousarray(_to_8(strip, context.bits))
    if convert := color.converter(context.profile, "CMYK"):
        return convert(inks)
    image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
    return np.asarray(image.convert("RGB"))


def _ycbcr(strip: Array, context: Context) -> Array:
    red, green, blue = context.luma
    black, white = np.array(context.reference[0::2]), np.array(context.reference[1::2])
    scale = np.array([255.0, 127.0, 127.0]) / np.maximum(white - black, 1e-9)
    y, cb, cr = np.moveaxis((strip - black) * scale, 2, 0)
    r = y + (2 - 2 * red) * cr
    b = y + (2 - 2 * blue) * cb
    g = (y - red * r - blue * b) / green
    return np.asarray(np.rint(np.stack([r, g, b], -1)).clip(0, 255).astype(np.uint8))


def _lab(strip: Array, context: Context, *, signed: bool) -> Array:
    """CIE L*a*b* of D50; a and b around 0, or around the middle of their range."""
    high = (strip >> (context.bits - 8)).astype(np.uint8)
    if high.shape[2] == 1:
        high = np.concatenate([high, np.full((*high.shape[:2], 2), 0 if signed else 128, np.uint8)], axis=2)
    if signed:
        high = high ^ np.array([0, 128, 128], np.uint8)
    convert = color.converter(None, "LAB")
    assert convert is not None
    return convert(high)


def _cielab(strip: Array, context: Context) -> Array:
    return _lab(strip, context, signed=True)


def _icclab(strip: Array, context: Context) -> Array:
    return _lab(strip, context, signed=False)


_STRETCHED = "the range that `depth` names becomes 0..255"

_WHOLE = "values × 255 / (2^bits − 1)"
_INVERTED = "the lowest white"
_MAP = "the color map's colors; a map without a value of 256 or more is one of 8 bits"
_LAB = "CIE L*a*b* of D50, a and b"
_BYTE, _DEEP, _INT, _FLOAT = tuple(range(1, 9)), (*range(9, 33), 64), (8, 16, 32, 64), (16, 24, 32, 64)

TABLE = (
    Meaning(WHITE_IS_ZERO, "white is zero", "uint", _BYTE, 1, f"gray, {_INVERTED}; {_WHOLE}", white_is_zero),
    Meaning(WHITE_IS_ZERO, "white is zero", "uint", _DEEP, 1, f"gray, {_INVERTED}; {_STRETCHED}", None),
    Meaning(WHITE_IS_ZERO, "white is zero", "int", _INT, 1, f"gray, {_INVERTED}; {_STRETCHED}", None),
    Meaning(WHITE_IS_ZERO, "white is zero", "float", _FLOAT, 1, f"gray, {_INVERTED}; {_STRETCHED}", None),
    Meaning(BLACK_IS_ZERO, "black is zero", "uint", _BYTE, 1, f"gray; {_WHOLE}", black_is_zero),
    Meaning(BLACK_IS_ZERO, "black is zero", "uint", _DEEP, 1, f"gray; {_STRETCHED}", None),
    Meaning(BLACK_IS_ZERO, "black is zero", "int", _INT, 1, f"gray; {_STRETCHED}", None),
    Meaning(BLACK_IS_ZERO, "black is zero", "float", _FLOAT, 1, f"gray; {_STRETCHED}", None),
    Meaning(RGB, "RGB", "uint", _BYTE, 3, _WHOLE, black_is_zero),
    Meaning(RGB, "RGB", "uint", _DEEP, 3, f"{_STRETCHED}, one range for all three", None),
    Meaning(RGB, "RGB", "int", _INT, 3, f"{_STRETCHED}, one range for all three", None),
    Meaning(RGB, "RGB", "float", _FLOAT, 3, f"{_STRETCHED}, one range for all three", None),
    Meaning(PALETTE, "palette", "uint", tuple(range(1, 17)), 1, _MAP, _palette),
    Meaning(SEPARATED, "separated", "uint", (8, 16), 4, "CMYK, by its profile or as (1 − ink)(1 − black)", _cmyk),
    Meaning(YCBCR, "YCbCr", "uint", (8,), 3, "by its coefficients, its black and its white", _ycbcr),
    Meaning(CIELAB, "CIELab", "uint", (8,), 3, f"{_LAB} signed", _cielab),
    Meaning(CIELAB, "CIELab", "uint", (16,), 3, f"{_LAB} signed", _cielab),
    Meaning(ICCLAB, "ICCLab", "uint", (8,), 3, f"{_LAB} around 128", _icclab),
    Meaning(ICCLAB, "ICCLab", "uint", (16,), 3, f"{_LAB} around 32768", _icclab),
)

REFUSED = {
    MASK: "a transparency mask, and no picture",
    10: "ITULab",
    32803: "a camera raw file (color filter array)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera raw file (linear raw)",
    51177: "a depth map",
    52527: "a semantic mask",
}


def meaning(photometric: int, sample: Sample) -> Meaning:
    """The row of a photometric interpretation and a kind of sample. Raises UnsupportedImage, naming both."""
    rows = [row for row in TABLE if row.photometric == photometric]
    if not rows:
        name = REFUSED.get(photometric, f"of photometric interpretation {photometric}")
        raise UnsupportedImage(f"this TIFF is {name}, which is not opened; send it as RGB or gray")
    for row in rows:
        if row.format == sample.format and sample.bits in row.bits:
            return row
    raise UnsupportedImage(
        f"{rows[0].name} TIFF with {sample.format} samples of {sample.bits} bits is not opened; send 8 or 16 bits"
    )
