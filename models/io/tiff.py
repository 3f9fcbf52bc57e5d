"""TIFF files to RGB uint8: which of a file's images, which of its bands, what it says of their meaning and validity.

Knows nothing of other formats, of clusters, of networks. `tiff_directory` says what a file holds, `tiff_segments` reads
strips and tiles, `tiff_bands` knows which samples are shown and `photometric` what they mean, `stretch` brings deep
ones to 8 bits.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.io import alpha as transparency
from models.io import color, photometric, tiff_bands, tiff_directory
from models.io.photometric import RGB, WHITE_IS_ZERO, Context, Convert, Meaning, meaning
from models.io.samples import (
    Choice,
    Decoded,
    Encoded,
    ImageError,
    ImageTooLarge,
    Limits,
    NoSuchPart,
    Size,
    UnsupportedImage,
    upright,
)
from models.io.stretch import of_type, to_8_bit
from models.io.tiff_bands import Bands
from models.io.tiff_directory import Contents, Directory, Picture
from models.io.tiff_segments import Sample, Segments
from models.types import Array

_MOST_CHANNELS = 256  # that are pages of their own


@dataclass(frozen=True)
class Plan:
    """One image of a file, ready to be read.

    parts    its directories: several where each is a channel
    convert  samples to colors; None where `depth` says how they become 8 bits
    size     of the picture (H, W), as shown: the whole one's where the image is a level of a pyramid
    """

    parts: Sequence[Segments]
    meaning: Meaning
    convert: Convert | None
    context: Context
    bands: Bands
    mask: Segments | None
    size: Size
    pages: int
    orientation: int
    warnings: tuple[str, ...]

    @property
    def working_bytes(self) -> int:
        """Held at most: samples or RGB and one segment, or RGB and the copy of it that resizing makes."""
        part, pixels = self.parts[0], self.parts[0].size[0] * self.parts[0].size[1]
        colors = len(self.bands.colors)
        held = pixels * (3 if self.convert else colors if self.one_piece else colors * part.dtype.itemsize)
        return max(held + part.working_bytes, 7 * pixels) + 2 * pixels

    @property
    def one_piece(self) -> bool:
        """Whether stretched samples lie in one segment as they are wanted: no copy of them is made."""
        part, bands = self.parts[0], self.bands
        whole = part.down * part.across == 1 and len(self.parts) == 1 and bands.colors == tuple(range(part.samples))
        return whole and self.convert is None and bands.alpha is None and not part.planar

    def decode(self, choice: Choice) -> Decoded:
        """Reads it. Raises ImageError and its kin."""
        read = _read(self)
        image, valid, rule = shown(
            self, read, None if self.mask is None else _mask(self.mask, self.parts[0].size), choice
        )
        del read
        turned = None if valid is None else upright(valid, self.orientation)
        return Decoded(
            upright(image, self.orientation), turned, self.size, rule, self.pages, self.orientation, self.warnings
        )


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins as TIFF, as `models.io.decode.inspect` has it."""
    contents = Contents(data)
    if contents.raw:
        raise UnsupportedImage("this is a camera raw file, which is not opened; develop it, or send the camera's JPEG")
    pages = len(contents.pictures)
    if choice.page >= pages:
        raise NoSuchPart(f"page {choice.page}: this file has {pages} page(s), counted from 0")
    picture = contents.pictures[choice.page]
    plan = make_plan(picture, contents, limits, choice)
    return Encoded(plan.size, plan.working_bytes, lambda: plan.decode(choice))


def make_plan(picture: Picture, contents: Contents, limits: Limits, choice: Choice, *, at_once: bool = True) -> Plan:
    """How one of a file's pictures is read; `at_once`: as a whole, so that all of it is within what may be held.

    Raises ImageError and its kin.
    """
    first, warnings = picture.channels[0], list[str]()
    orientation = first.number(tiff_directory.ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    chosen, size = _level(picture, contents, limits, choice, orientation, warnings)
    if len(chosen) > _MOST_CHANNELS:
        raise UnsupportedImage(f"TIFF of {len(chosen)} pages that make one picture is not opened; send fewer channels")
    parts = [Segments(d, limits) for d in chosen]
    part = parts[0]
    if any((other.rows, other.columns, other.dtype) != (part.rows, part.columns, part.dtype) for other in parts):
        raise UnsupportedImage("the channels of this TIFF are stored in different ways; send them in one")
    if chosen[0].number(tiff_directory.DEPTH, 1) > 1:
        raise UnsupportedImage("volumetric TIFF pages are not opened; send one plane")
    interpretation = RGB if part.decodes_color else chosen[0].photometric
    row = meaning(interpretation, part.sample)
    bands = tiff_bands.choose(parts, row, choice, contents.grouped, warnings)
    context = _context(part)
    convert = row.convert
    if convert is None and part.sample.format == "uint" and part.sample.bits <= 16 and context.profile:
        mode: color.Mode = "L" if len(bands.colors) == 1 else "RGB"
        if color.converter(context.profile, mode, warnings) is not None:  # its colors first, then the stretch
            convert = photometric.white_is_zero if interpretation == WHITE_IS_ZERO else photometric.black_is_zero
    planes = len({*bands.colors, *([] if bands.alpha is None else [bands.alpha])}) if part.planar else len(parts)
    if at_once:
        part.check(planes)
    mask_page = picture.mask_for(chosen[0].size) or picture.mask_for(picture.size)
    mask = None if mask_page is None else Segments(mask_page, limits)
    if mask is not None and at_once:
        mask.check(mask.bands if mask.planar else 1)
    return Plan(
        parts,
        row,
        convert,
        context,
        bands,
        mask,
        size,
        len(contents.pictures),
        orientation,
        tuple(warnings),
    )


def _level(
    picture: Picture, contents: Contents, limits: Limits, choice: Choice, orientation: int, warnings: list[str]
) -> tuple[list[Directory], Size]:
    """The directories to read, and the size (H, W) that their picture has as it is shown."""

    def upright_size(size: Size) -> Size:
        return size if orientation < 5 else (size[1], size[0])

    if choice.level:
        if choice.level > len(picture.levels):
            raise NoSuchPart(f"pyramid {choice.level}: this picture has {len(picture.levels)} smaller level(s)")
        level = picture.levels[choice.level - 1]
        return level, upright_size(level[0].size)
    try:
        limits.check_size(*picture.size)
    except ImageTooLarge as error:
        raise ImageTooLarge(f"{error}{_smaller_one(picture, contents, limits)}") from None
    size = upright_size(picture.size)
    if choice.level is None and choice.enough is not None:
        needed = choice.enough(size)
        for number, level in reversed(list(enumerate(picture.levels, 1))):
            height, width = upright_size(level[0].size)
            if height >= needed[0] and width >= needed[1]:
                warnings.append(
                    f"level {number} of the pyramid, {width}×{height}, was read: it suffices for the network;"
                    " pyramid=full reads the whole"
                )
                return level, size
    return picture.channels, size


def _smaller_one(picture: Picture, contents: Contents, limits: Limits) -> str:
    """Where the file itself has what would do: a level, or a page."""

    def fits(size: Size) -> bool:
        try:
            limits.check_size(*size)
        except ImageError:
            return False
        return True

    for number, level in enumerate(picture.levels, 1):
        if fits(level[0].size):
            return f"; level {number} of this pyramid, {level[0].size[1]}×{level[0].size[0]}, fits: pyramid={number}"
    for number, other in enumerate(contents.pictures):
        if other is not picture and fits(other.size):
            return f"; page {number}, {other.size[1]}×{other.size[0]}, fits: page={number}"
    return ""


class Samples:
    """What was read of some rows of a picture; `values` is given up by whoever stretches it.

    values   [rows, W, n] as stored or RGB uint8
    opacity  uint8 [rows, W], None: all opaque;  valid  bool [rows, W], None: all valid, or left to `stretch`
    """

    def __init__(self, values: Array, opacity: Array | None, valid: Array | None) -> None:
        self.values, self.opacity, self.valid = values, opacity, valid


def shown(
    plan: Plan, read: Samples, mask: Array | None, choice: Choice, between: tuple[float, float] | None = None
) -> tuple[Array, Array | None, str | None]:
    """Samples as RGB uint8 [rows, W, 3], where they are valid, and the rule of the stretch.

    mask  opacity uint8 [rows, W] besides the picture's own;  between  the stretch's range where it is known
    """
    opacity, valid = read.opacity, read.valid
    if mask is not None:  # a transparency mask, as TIFF calls it
        opacity = mask if opacity is None else np.minimum(opacity, mask)
    if opacity is not None and not opacity.all():
        valid = opacity != 0 if valid is None else valid & (opacity != 0)
    image, valid, rule = _eight_bits(plan, read, choice, valid, between)
    if valid is not None:
        image[~valid] = 0
    if opacity is not None:
        premultiplied = plan.bands.premultiplied and plan.convert is not None
        image, _ = transparency.paint(image, opacity, premultiplied=premultiplied)
    return image, valid, rule


def _read(plan: Plan) -> Samples:
    """All of a picture."""
    part = plan.parts[0]
    if plan.one_piece and (whole := part.read(0, 0, 0)) is not None:
        return Samples(whole, None, None)
    return read_rows(plan, range(part.down))


def read_rows(plan: Plan, down: range) -> Samples:
    """The rows that some rows of segments hold.

    Of stretched pictures no-data is left to `stretch`.
    """
    part, bands = plan.parts[0], plan.bands
    width, first = part.size[1], down.start * part.rows
    height = min(down.stop * part.rows, part.size[0]) - first
    channels = len(bands.colors)
    if plan.convert is not None:
        empty = np.zeros((1, 1, max(channels, plan.meaning.colors)), part.dtype)
        channels = plan.convert(empty, plan.context).shape[2]
    dtype = part.dtype if plan.convert is None else np.dtype(np.uint8)
    # One block of bytes, so that 8-bit values can take the place of the samples they are made of.
    samples = (
        np.empty(height * width * channels * dtype.itemsize, np.uint8).view(dtype).reshape(height, width, channels)
    )
    opacity = None if bands.alpha is None else np.full((height, width), 255, np.uint8)
    valid = np.ones((height, width), bool) if nodata_of(part.directory) is not None and plan.convert else None
    for row in down:
        for column in range(part.across):
            block = read_block(plan, row, column)
            top, left = row * part.rows - first, column * part.columns
            place = slice(top, top + block.values.shape[0]), slice(left, left + block.values.shape[1])
            if opacity is not None and block.opacity is not None:
                opacity[place] = block.opacity
            if valid is not None and block.valid is not None:
                valid[place] = block.valid
            samples[place] = block.values
    return Samples(samples, opacity, None if valid is None or valid.all() else valid)


def read_block(plan: Plan, row: int, column: int) -> Samples:
    """What one place in the grid of segments holds."""
    part, bands = plan.parts[0], plan.bands
    nodata = nodata_of(part.directory)
    block = _pixels(plan, row, column, nodata)
    colors, opacity, valid = block[..., : len(bands.colors)], None, None
    if bands.alpha is not None:
        opacity = _opacity(block[..., -1], part.sample)
        if bands.premultiplied and plan.convert is None:
            colors = _unmultiplied(colors, opacity)
    if plan.convert is None:
        return Samples(colors, opacity, None)
    if nodata is not None:
        valid = (colors != nodata).any(axis=2)
    return Samples(plan.convert(colors, plan.context), opacity, valid)


def _pixels(plan: Plan, row: int, column: int, nodata: float | None) -> Array:
    """The wanted samples of one place in the grid of segments: colors, then alpha. [rows, columns, n]"""
    part, wanted = plan.parts[0], [*plan.bands.colors, *([] if plan.bands.alpha is None else [plan.bands.alpha])]
    read: list[Array | None]
    if len(plan.parts) > 1:
        read = [plan.parts[i].read(0, row, column) for i in wanted]
    elif part.planar:
        read = [part.read(i, row, column) for i in wanted]
    else:
        whole = part.read(0, row, column)
        if whole is not None and wanted == list(range(whole.shape[2])):
            return whole
        read = [None if whole is None else whole[..., i : i + 1] for i in wanted]
    height = min(part.rows, part.size[0] - row * part.rows)
    width = min(part.columns, part.size[1] - column * part.columns)
    fill = nodata if part.dtype.kind == "f" and nodata != nodata else of_type(nodata, part.dtype)
    empty = np.full((height, width, 1), 0 if fill is None else fill, part.dtype)
    return np.concatenate([empty if one is None else one for one in read], axis=2)


def _eight_bits(
    plan: Plan, read: Samples, choice: Choice, valid: Array | None, between: tuple[float, float] | None
) -> tuple[Array, Array | None, str | None]:
    """RGB uint8 [H, W, 3], where it is valid, and the rule of the stretch. The samples are given up."""
    samples = read.values
    del read.values
    if not stretched(plan, choice):
        return _as_rgb(samples), valid, None
    keys = stretch_of(plan)
    base = samples.base
    own = isinstance(base, np.ndarray) and base.dtype == np.uint8 and base.base is None and base.flags.owndata
    out = base[: samples.size].reshape(samples.shape) if own and isinstance(base, np.ndarray) else None
    if plan.convert is not None:
        found = to_8_bit(samples, choice.depth, valid=valid, out=samples, between=between, **keys)
        return _as_rgb(found.image), valid, f"by the color profile, then {found.rule}"
    found = to_8_bit(samples, choice.depth, valid=valid, out=out, between=between, **keys)
    return _as_rgb(found.image), found.valid, found.rule


def stretched(plan: Plan, choice: Choice) -> bool:
    """Whether a range of samples is brought to 8 bits, or they are colors already."""
    return plan.convert is None or (plan.meaning.convert is None and choice.depth != "full")


def stretch_of(plan: Plan) -> dict[str, Any]:
    """What `stretch.to_8_bit` is told of a picture's samples."""
    if plan.convert is not None:
        return {"keep_bytes": False}
    part = plan.parts[0]
    bits = part.sample.bits if part.sample.format == "uint" else None
    return {
        "bits": bits,
        "inverted": plan.meaning.photometric == WHITE_IS_ZERO,
        "nodata": nodata_of(part.directory),
    }


def _as_rgb(image: Array) -> Array:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _context(part: Segments) -> Context:
    directory = part.directory
    palette = directory.numbers(tiff_directory.COLOR_MAP, 3 * 2**16).astype(np.uint16)
    luma = directory.numbers(tiff_directory.LUMA, 4).tolist()
    reference = directory.numbers(tiff_directory.REFERENCE, 7).tolist()
    return Context(
        part.sample.bits,
        palette if palette.size else None,
        directory.raw(tiff_directory.ICC_PROFILE) or None,
        tuple(luma) if len(luma) == 3 and luma[1] else Context.luma,
        tuple(reference) if len(reference) == 6 else Context.reference,
    )


def nodata_of(directory: Directory) -> float | None:
    """The number in GDAL's tag, which is text, an int where it is whole: of 64 bits all count. None without one."""
    text = directory.text(tiff_directory.GDAL_NODATA)[:64].replace(",", ".").lower()
    try:
        if re.fullmatch(r"[+-]?\d{1,20}", text):
            return int(text)
        return float("nan" if "nan" in text or "#ind" in text else text)
    except ValueError:
        return None


def _opacity(samples: Array, sample: Sample) -> Array:
    """Alpha of any type as uint8: all of an integer's positive range, 0..1 of a float's."""
    if sample.format == "uint" and sample.bits <= 8:
        return np.asarray((samples.astype(np.uint16) * 255 // (2**sample.bits - 1)).astype(np.uint8))
    values = samples.astype(np.float64)
    if sample.format == "float":
        values, most = np.nan_to_num(values, nan=0.0, posinf=1.0), 1.0
    else:
        most = 2.0**sample.bits - 1 if sample.format == "uint" else 2.0 ** (sample.bits - 1) - 1
    opacity = np.rint(values.clip(0, most) * (255 / most))
    opacity[(values > 0) & (opacity == 0)] = 1  # what is seen through almost wholly is still seen
    return np.asarray(opacity.astype(np.uint8))


def _unmultiplied(colors: Array, opacity: Array) -> Array:
    """Colors before they were multiplied by their opacity, in their own type."""
    most = np.inf if colors.dtype.kind == "f" else float(np.iinfo(colors.dtype).max)
    part = np.maximum(opacity, 1)[..., None] / 255
    return np.asarray(np.minimum(colors / part, most).astype(colors.dtype))


def _mask(segments: Segments, size: Size) -> Array:
    """Opacity uint8 [H, W] by a mask page: 255 where its samples are not 0, whatever its photometric interpretation."""
    opacity = np.where(segments.read_all()[..., 0] != 0, np.uint8(255), np.uint8(0))
    if segments.size == size:
        return opacity
    down, across = (np.arange(n) * have // n for n, have in zip(size, segments.size, strict=True))
    return opacity[down[:, None], across]
