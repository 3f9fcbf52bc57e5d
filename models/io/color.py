"""Color management: samples whose meaning an ICC profile states, as sRGB. By littleCMS, which Pillow brings.

Knows nothing of file formats, of depths, of transparency. A profile never refuses a picture: where it says nothing of
these samples they stay as they are, and a sentence tells so.
"""

import hashlib
import io
import struct
import threading
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from models.types import Array

Mode = Literal["L", "RGB", "CMYK", "LAB"]
Convert = Callable[[Array], Array]

_SPACES = {"L": (b"GRAY", b"RGB "), "RGB": (b"RGB ",), "CMYK": (b"CMYK",), "LAB": (b"Lab ",)}  # of profiles that fit
_NAMES = {"L": "gray", "RGB": "RGB", "CMYK": "CMYK", "LAB": "CIELAB"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")  # the others join devices or name colors: they show no picture
_MAX_BYTES = 4 * 2**20  # the largest of the registries' CMYK profiles have half of it
_KEPT = 32  # converters; each holds a table of at most two megabytes
_SAME = 2  # levels of 255 by which sRGB's own profiles differ from each other, as their makers rounded them
_STRIP = 2**17  # pixels converted at once
_SIGNED = np.array([0, 128, 128], np.uint8)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_D50 = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))

_kept: dict[tuple[bytes, Mode], tuple[Convert | None, str | None]] = {}
_lock = threading.Lock()


def converter(profile: bytes | None, mode: Mode, warnings: list[str] | None = None) -> Convert | None:
    """The function that turns samples of this profile into sRGB; None where they may be taken as they are.

    mode      of the samples: `L` gray, 255 is white; `RGB`; `CMYK`, 255 is all of an ink; `LAB`, L of 0..100 as 0..255,
              a and b plus 128, relative to D50. Without a profile only LAB has a meaning of its own.
    warnings  gets a sentence where the profile is damaged, or is of other colors than the samples

    The function takes uint8 [rows, W] of gray or [rows, W, C] and answers RGB uint8 [rows, W, 3]; threads may share it.
    Perceptual intent with black point compensation: what browsers and ImageMagick show.
    """
    if not profile and mode != "LAB":
        return None
    key = (hashlib.sha256(profile or b"").digest(), mode)
    with _lock:
        known = _kept.get(key)
    if known is None:
        known = _build(profile or b"", mode)
        with _lock:
            _kept[key] = known
            while len(_kept) > _KEPT:
                del _kept[next(iter(_kept))]
    convert, warning = known
    if warning and warnings is not None:
        warnings.append(warning)
    return convert


def _build(profile: bytes, mode: Mode) -> tuple[Convert | None, str | None]:
    """The converter and the warning that belong to a profile, made once."""
    if mode == "LAB":
        return _of_colors(_transform(_D50, "LAB"), mode), None
    if problem := _problem(profile, mode):
        return None, problem
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(_without_float_tables(profile)))
        convert = _of_grays(source, profile) if mode == "L" else _of_colors(_transform(source, mode), mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None, "the color profile is damaged, and was left out"
    return (None if _is_identity(convert, mode) else convert), None


def _problem(profile: bytes, mode: Mode) -> str | None:
    """Why a profile says nothing of samples of this mode, or None."""
    size, kind, space = len(profile), profile[12:16], profile[16:20]
    if size > _MAX_BYTES:
        return f"the color profile has {size / 2**20:.1f} MiB, and was left out: at most {_MAX_BYTES >> 20} are read"
    if size < 132 or profile[36:40] != b"acsp":
        return "the color profile is damaged, and was left out"
    if kind not in _CLASSES or space not in _SPACES[mode]:
        name = space.decode("ascii", "replace").strip() if space.isascii() and space.strip().isalnum() else "other"
        return f"the color profile is for {name} samples, not for {_NAMES[mode]}, and was left out"
    return None


def _without_float_tables(profile: bytes) -> bytes:
    """The profile without its D2B tags, chains of any length that littleCMS would walk for every color of its tables.

    What reads no such chains finds the A2B tables or curves beside them. Source: ICC.1:2022, 9.2.
    """
    count = min(struct.unpack_from(">I", profile, 128)[0], (len(profile) - 132) // 12)
    tags = bytearray(profile)
    for at in range(132, 132 + 12 * count, 12):
        if tags[at : at + 3] == b"D2B":
            tags[at : at + 3] = b"xxx"
    return bytes(tags)


def _transform(source: ImageCms.ImageCmsProfile, mode: str, flags: int = 0) -> ImageCms.ImageCmsTransform:
    flags |= ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.ImageCmsTransform(
        source, _SRGB, mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags=ImageCms.Flags(flags)
    )


def _of_colors(transform: ImageCms.ImageCmsTransform, mode: Mode) -> Convert:
    def convert(samples: Array) -> Array:
        height, width = samples.shape[:2]
        rgb = np.empty((height, width, 3), np.uint8)
        rows = max(1, _STRIP // max(1, width))
        for top in range(0, height, rows):
            strip = samples[top : top + rows]
            if mode == "LAB":
                strip = strip ^ _SIGNED  # Pillow reads a and b as TIFF writes them, around 0
            image = Image.frombytes(mode, (width, len(strip)), strip.tobytes())
            rgb[top : top + rows] = np.asarray(transform.apply(image))
        return rgb

    return convert


def _of_grays(source: ImageCms.ImageCmsProfile, profile: bytes) -> Convert:
    """A table of 256 colors, without littleCMS's short cuts: they miss the darkest grays of a flat curve by ten levels.

    Gray samples of an RGB profile are colors with R = G = B.
    """
    mode = "RGB" if profile[16:20] == b"RGB " else "L"
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    table = np.asarray(_transform(source, mode, ImageCms.Flags.NOOPTIMIZE).apply(ramp))[0]

    def convert(samples: Array) -> Array:
        return np.take(table, samples, axis=0)

    return convert


def _is_identity(convert: Convert, mode: Mode) -> bool:
    """Whether every gray, and every color of a grid through all of them, stays as it is but for roundings."""
    if mode == "CMYK":
        return False
    grays = np.arange(256, dtype=np.uint8)[None]
    samples = neutral = np.repeat(grays[..., None], 3, axis=2)
    if mode == "RGB":
        grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), -1).reshape(1, -1, 3)
        samples = np.concatenate([grid, neutral], axis=1)
    shown = convert(grays if mode == "L" else samples).astype(np.int16)
    return bool(np.abs(shown - samples).max() <= _SAME)
