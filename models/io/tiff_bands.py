"""Which samples of a TIFF's pixel are shown, and which one is opacity.

Knows nothing of values: numbers of samples, and what the file says of them.
Source: TIFF 6.0, ExtraSamples; GDAL's GTiff driver, GDAL_METADATA.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.io import photometric, tiff_directory
from models.io.photometric import RGB, Meaning
from models.io.samples import Choice, ImageError, NoSuchPart
from models.io.tiff_segments import Segments

_NAMED = 12  # bands that a warning names one by one
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples that are alpha; 0 is anything else


@dataclass(frozen=True)
class Bands:
    """Which samples of a pixel are shown.

    colors         their numbers from 0, over all directories of the picture
    alpha          the number of the one that is opacity;  premultiplied  the colors were multiplied by it
    """

    colors: tuple[int, ...]
    alpha: int | None
    premultiplied: bool


def choose(parts: Sequence[Segments], row: Meaning, choice: Choice, grouped: str, warnings: list[str]) -> Bands:
    """Which samples are shown: those asked for, those the file names, or the first."""
    part, directory = parts[0], parts[0].directory
    count = len(parts) if len(parts) > 1 else part.bands
    if part.bands < row.colors:
        raise ImageError(f"the TIFF is damaged: {row.name} with {part.bands} sample(s) a pixel")
    extra = directory.numbers(tiff_directory.EXTRA_SAMPLES, 4096).tolist()
    first_extra = max(count - len(extra), row.colors) if extra else count
    kinds = {first_extra + i: kind for i, kind in enumerate(extra) if first_extra + i < count}
    named = _named_bands(directory.text(tiff_directory.GDAL_METADATA)) if len(parts) == 1 else {}
    alphas = [i for i, name in named.items() if name == "alpha" and i < count]
    alphas = alphas or [i for i, kind in kinds.items() if kind in (_ASSOCIATED, _UNASSOCIATED) and i not in named]
    alpha = alphas[0] if alphas else None
    premultiplied = alpha is not None and kinds.get(alpha) == _ASSOCIATED
    if row.colors > 1 and row.photometric != RGB:
        colors: tuple[int, ...] = tuple(range(row.colors))
        if choice.bands not in (None, (1, 2, 3)):
            raise NoSuchPart(f"bands: the samples of a {row.name} picture make one color together; leave `bands` out")
    elif choice.bands is not None:
        if max(choice.bands) > count or len(choice.bands) not in (1, 3):
            given = ",".join(map(str, choice.bands))
            raise NoSuchPart(f"bands {given}: this picture has the bands 1 to {count}; name one or three of them")
        colors = tuple(band - 1 for band in choice.bands)
        alpha = None if alpha in colors else alpha
    else:
        colors = _by_file([i for i in range(count) if i != alpha], row, named)
    if len(parts) > 1:
        warnings.append(_of_channels(grouped, colors, count))
    elif left := [i + 1 for i in range(count) if i not in colors and i != alpha]:
        each = [f"{i} ({named[i - 1]})" if i - 1 in named else str(i) for i in left]
        names = ", ".join(each) if len(each) <= _NAMED else str(len(each))
        warnings.append(f"of {count} bands, {names} {'is' if len(left) == 1 else 'are'} left out: bands= chooses")
    return Bands(colors, alpha, premultiplied)


def _by_file(candidates: list[int], row: Meaning, named: dict[int, str]) -> tuple[int, ...]:
    """By the file's own names of colors, else the first three; gray where there are fewer."""
    by_name = {name: i for i, name in reversed(named.items()) if i in candidates}
    if row.photometric == photometric.PALETTE:
        return (0,)
    if {"red", "green", "blue"} <= by_name.keys():
        return by_name["red"], by_name["green"], by_name["blue"]
    return tuple(candidates[:3]) if len(candidates) >= 3 else tuple(candidates[:1])


def _named_bands(metadata: str) -> dict[int, str]:
    """GDAL's color interpretation of each band from 0, in small letters."""
    items = re.findall(r"<Item\b([^<>]*)>\s*(\w+)\s*<", metadata)
    items = [(attributes, name) for attributes, name in items if 'role="colorinterp"' in attributes]
    found = ((re.search(r'\bsample="(\d{1,5})"', attributes), name.lower()) for attributes, name in items)
    return {int(sample[1]): name for sample, name in found if sample and name != "undefined"}


def _of_channels(grouped: str, colors: tuple[int, ...], count: int) -> str:
    left = [str(i + 1) for i in range(count) if i not in colors]
    how = f"channel {colors[0] + 1} is shown as gray"
    if len(colors) == 3:
        how = f"channels {', '.join(str(i + 1) for i in colors)} are shown as red, green and blue"
    rest = f"; left out: {', '.join(left)}" if left else ""
    return f"{grouped} says that this picture has {count} channels: {how}{rest}; bands= chooses"
