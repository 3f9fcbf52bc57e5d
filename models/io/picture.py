"""Decoded channels to what a viewer shows: colour management, transparency, the chosen bands, the turn.

Knows nothing of file formats. TIFF has more kinds of channels, and its own way (`models.io.tiff`).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.io import color
from models.io.alpha import paint
from models.io.samples import Choice, Decoded, NoSuchBand, to_8_bit, upright
from models.types import Array

Space = Literal["colors", "inks"]  # gray and RGB, or CMYK with 255 for all of an ink

# Bytes for each pixel of the RGB image, of Pillow's copy of it while it is resized, and of its validity.
RGB_BYTES, RESIZING_BYTES = 3, 3 + 4 + 1
_STRIP = 2**17  # pixels whose colors are converted at once


@dataclass
class Channels:
    """The channels of a picture as its decoder hands them out.

    samples      uint8 or uint16 [H, W] or [H, W, C]: gray, gray and alpha, RGB, or RGB and alpha; CMYK where those are
                 `inks`; deeper samples fill the range of their type
    profile      the file's ICC profile
    orientation  EXIF's 1..8, still to be taken
    premultiplied  the colors were multiplied by the alpha
    """

    samples: Array
    profile: bytes | None = None
    orientation: int = 1
    inks: bool = False
    premultiplied: bool = False
    warnings: list[str] = field(default_factory=list)


def show(channels: Channels, choice: Choice, *, pages: int = 1) -> Decoded:
    """The picture as a viewer shows it. The channels' samples may be overwritten.

    Raises NoSuchBand, and what `to_8_bit` raises.
    """
    colors, opacity = _split(channels)
    check_bands(choice.bands, 3 if channels.inks or colors.ndim == 3 else 1)
    valid = None if opacity is None or opacity.all() else opacity != 0
    colors, rule = _to_8_bit(colors, choice, valid)
    rgb = _to_rgb(colors, channels)
    if opacity is not None:
        opacity = opacity if opacity.dtype == np.uint8 else (opacity >> 8).astype(np.uint8)
        rgb, _ = paint(rgb, opacity, premultiplied=channels.premultiplied)
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
    """Raises NoSuchBand where `bands`, from 1, are not one or three of a picture's `count` channels."""
    if bands and (len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands)):
        raise NoSuchBand(
            f"bands {','.join(map(str, bands))}: this picture has"
            f" {'the bands 1 to 3' if count == 3 else 'band 1 alone'}; name one or three of them"
        )


def full_range(samples: Array, bits: int) -> Array:
    """Samples of fewer bits than their type has, spread over all of its range, in place: 4095 of 12 bits is 65535."""
    info = np.iinfo(samples.dtype)
    if bits >= info.bits:
        return samples
    table = np.rint(np.arange(2**info.bits).clip(0, 2**bits - 1) * (info.max / (2**bits - 1))).astype(samples.dtype)
    rows = max(1, _STRIP // max(1, samples[0].size))
    for top in range(0, len(samples), rows):
        samples[top : top + rows] = table[samples[top : top + rows]]
    return samples


def _split(channels: Channels) -> tuple[Array, Array | None]:
    """Colors [H, W], [H, W, 3] or inks [H, W, 4], and opacity [H, W] or None where all is opaque."""
    samples = channels.samples
    count = 1 if samples.ndim == 2 else samples.shape[2]
    if channels.inks or samples.ndim == 2 or count == 3:
        return samples, None
    if count == 1:
        return samples[..., 0], None
    colors, opacity = samples[..., 0] if count == 2 else samples[..., :3], samples[..., -1]
    opaque = opacity.min() == np.iinfo(samples.dtype).max
    return colors, None if opaque else opacity


def _to_8_bit(colors: Array, choice: Choice, valid: Array | None) -> tuple[Array, str | None]:
    """What is no data is in no percentile."""
    if colors.dtype == np.uint8 or valid is None or not valid.any():
        return to_8_bit(colors, choice.depth)
    image = np.full(colors.shape, 255, np.uint8)
    image[valid], rule = to_8_bit(colors[valid], choice.depth)
    return image, rule


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
