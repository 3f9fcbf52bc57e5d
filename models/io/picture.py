"""Decoded channels to what a viewer shows: color management, transparency, the chosen bands, the turn.

Knows nothing of file formats. TIFF has more kinds of channels, and its own way (`models.io.tiff`).
"""

from dataclasses import dataclass, field

import numpy as np

from models.io import color
from models.io.alpha import paint
from models.io.samples import Choice, Decoded, NoSuchPart, upright
from models.io.stretch import to_8_bit
from models.types import Array

# Bytes for each pixel of the RGB image, of Pillow's copy of it while it is resized, and of its validity.
RGB_BYTES, RESIZING_BYTES = 3, 3 + 4 + 1
PROFILE_NS = 40  # of a core, for a pixel whose colors a profile states
_STRIP = 2**17  # pixels whose colors are converted at once


@dataclass
class Channels:
    """The channels of a picture as its decoder hands them out.

    samples      uint8, uint16 or float [H, W] or [H, W, C]: gray, gray and alpha, RGB, or RGB and alpha; CMYK where
                 those are `inks`; floats mean 0..1
    bits         of a sample, where its type has more
    valid        bool [H, W]: where the file says that there are data; None: wherever it is not transparent
    profile      the file's ICC profile
    orientation  EXIF's 1..8, still to be taken
    inks, premultiplied  the samples are CMYK; the colors were multiplied by the alpha
    """

    samples: Array
    profile: bytes | None = None
    orientation: int = 1
    inks: bool = False
    premultiplied: bool = False
    bits: int | None = None
    valid: Array | None = None
    warnings: list[str] = field(default_factory=list)


def show(channels: Channels, choice: Choice, *, pages: int = 1) -> Decoded:
    """The picture as a viewer shows it. The channels' samples may be overwritten.

    Raises NoSuchPart, and what `to_8_bit` raises.
    """
    colors, alpha = _split(channels)
    check_bands(choice.bands, 3 if channels.inks or colors.ndim == 3 else 1)
    valid, rule, opacity = channels.valid, None, None
    if alpha is not None:
        seen = alpha > 0
        valid = seen if valid is None else np.logical_and(valid, seen, out=seen)
        opacity = _opacity(alpha, channels.bits)
        del seen
    deep = colors.dtype != np.uint8
    managed = deep and colors.dtype.kind == "u" and _converts(channels, colors)
    if deep:
        depth = "full" if managed else choice.depth  # a profile speaks of the whole range
        stretched = to_8_bit(
            np.atleast_3d(colors), depth, bits=channels.bits, valid=valid, out=_own_memory(channels.samples, colors)
        )
        colors, valid, rule = stretched.image.reshape(colors.shape), stretched.valid, stretched.rule
    rgb = _to_rgb(colors, channels)
    if managed and choice.depth != "full":
        rgb = rgb if rgb.flags.writeable else rgb.copy()
        again = to_8_bit(rgb, choice.depth, valid=valid, out=rgb, keep_bytes=False)
        rule = f"by the color profile, then {again.rule}"
    if opacity is not None:
        rgb, _ = paint(rgb, opacity, premultiplied=channels.premultiplied)
    if channels.valid is not None:
        rgb = rgb if rgb.flags.writeable else rgb.copy()
        np.copyto(rgb, 0, where=~channels.valid[..., None])
    if valid is not None and valid.all():
        valid = None
    if choice.bands:
        rgb = rgb[..., [band - 1 for band in choice.bands * (3 // len(choice.bands))]]
    turn = channels.orientation
    return Decoded(
        upright(rgb, turn),
        None if valid is None else upright(valid, turn),
        depth_rule=rule,
        pages=pages,
        orientation=turn,
        warnings=tuple(channels.warnings),
    )


def check_bands(bands: tuple[int, ...] | None, count: int) -> None:
    """Raises NoSuchPart where `bands`, from 1, are not one or three of a picture's `count` channels."""
    if bands and (len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands)):
        raise NoSuchPart(
            f"bands {','.join(map(str, bands))}: this picture has"
            f" {'the bands 1 to 3' if count == 3 else 'band 1 alone'}; name one or three of them"
        )


def all_of_a_byte(samples: Array, bits: int) -> Array:
    """Bytes in which `bits` are used, 1..8, spread over 0..255: 15 of 4 bits becomes 255."""
    if bits >= 8 or samples.dtype != np.uint8:
        return samples
    table = np.rint(np.arange(256).clip(0, 2**bits - 1) * (255 / (2**bits - 1))).astype(np.uint8)
    return np.take(table, samples)


def _split(channels: Channels) -> tuple[Array, Array | None]:
    """Colors [H, W], [H, W, 3] or inks [H, W, 4], and alpha [H, W] or None where all is opaque."""
    samples = channels.samples
    count = 1 if samples.ndim == 2 else samples.shape[2]
    if channels.inks or samples.ndim == 2 or count == 3:
        return samples, None
    if count == 1:
        return samples[..., 0], None
    colors, alpha = samples[..., 0] if count == 2 else samples[..., :3], samples[..., -1]
    opaque = 1 if samples.dtype.kind == "f" else 2 ** (channels.bits or 8 * samples.itemsize) - 1
    return colors, None if alpha.min() >= opaque else alpha


def _opacity(alpha: Array, bits: int | None) -> Array:
    """Alpha as 8 bits; of what is not wholly transparent something is seen."""
    if alpha.dtype == np.uint8:
        return alpha
    opacity = np.empty(alpha.shape, np.uint8)
    scale = 255 if alpha.dtype.kind == "f" else 255 / (2 ** (bits or 8 * alpha.itemsize) - 1)
    rows = max(1, _STRIP // max(1, alpha.shape[1]))
    for top in range(0, len(alpha), rows):
        strip = alpha[top : top + rows]
        shown = np.rint(np.nan_to_num(strip) * np.float32(scale)).clip(0, 255)
        opacity[top : top + rows] = np.maximum(shown, strip > 0)
    return opacity


def _converts(channels: Channels, colors: Array) -> bool:
    """Whether the file's profile changes its colors."""
    return not channels.inks and color.converter(channels.profile, "L" if colors.ndim == 2 else "RGB") is not None


def _own_memory(samples: Array, colors: Array) -> Array | None:
    """The beginning of the samples' own memory for their colors as bytes; None where that may not be written."""
    if not (samples.flags.c_contiguous and samples.flags.writeable):
        return None
    count = 1 if colors.ndim == 2 else colors.shape[2]
    flat = samples.reshape(-1).view(np.uint8)
    return flat[: colors.shape[0] * colors.shape[1] * count].reshape(*colors.shape[:2], count)


def _to_rgb(colors: Array, channels: Channels) -> Array:
    """RGB uint8 [H, W, 3] of gray, RGB or CMYK, by the profile that is the file's."""
    if colors.ndim == 2:
        gray = color.converter(channels.profile, "L", channels.warnings)
        return gray(colors) if gray else np.repeat(colors[..., None], 3, axis=2)
    if channels.inks:
        inks = color.converter(channels.profile, "CMYK", channels.warnings) or _plain_inks
        rgb = np.empty((*colors.shape[:2], 3), np.uint8)
        _in_strips(inks, colors, rgb)
        return rgb
    convert = color.converter(channels.profile, "RGB", channels.warnings)
    if convert:
        rgb = colors if colors.flags.writeable else np.empty(colors.shape, np.uint8)
        _in_strips(convert, colors, rgb)
        return rgb
    return colors


def _in_strips(convert: color.Convert, samples: Array, rgb: Array) -> None:
    rows = max(1, _STRIP // max(1, samples.shape[1]))
    for top in range(0, len(samples), rows):
        rgb[top : top + rows] = convert(samples[top : top + rows])


def _plain_inks(samples: Array) -> Array:
    """Without a profile: each ink takes its own light, black takes all. What Pillow and browsers do."""
    light = 255 - samples.astype(np.uint16)
    return ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
