"""What every decoder takes and answers: limits and choices, pictures, refusals.

Knows nothing of file formats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from models.errors import TesseraError
from models.types import Array

Depth = Literal["percentile", "minmax", "full"]
Size = tuple[int, int]


class ImageError(TesseraError):
    """Bytes that are no image we can read: empty, truncated, damaged."""


class ImageTooLarge(ImageError):
    """More bytes or pixels than the limits allow."""


class UnsupportedImage(ImageError):
    """An intact file of a kind we do not open."""


class NoSuchPart(ImageError):
    """A page, level or bands that this image does not have."""


@dataclass(frozen=True)
class Limits:
    """What `decode` accepts: bytes, megapixels, longest side in pixels; `setting` says how many megapixels."""

    max_bytes: int = 32 * 2**20
    max_mpx: float = 50.0
    max_side_px: int = 32768
    setting: str = "TESSERA_MAX_MPX"

    @property
    def max_held_bytes(self) -> int:
        """Of samples that are in memory at once: 8 bytes for each of the pixels."""
        return int(8e6 * self.max_mpx)

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
                f"{width}×{height} is {mpx:.1f} Mpx; the limit is {self.max_mpx:g} Mpx ({self.setting}):"
                " send a smaller image"
            )
        if max(height, width) > self.max_side_px:
            raise ImageTooLarge(
                f"{width}×{height}: the longest side allowed is {self.max_side_px} pixels:"
                " send a smaller image or cut it"
            )


@dataclass(frozen=True)
class Choice:
    """What of a file is wanted.

    depth   how 16-bit, 32-bit and float samples become 8 bits: `percentile` (2–98 over the image), `minmax`, or `full`
            (the type's whole range; floats: 0..1)
    page    of the file's full images, from 0; GIF and animated WebP or PNG give their first frame
    bands   which samples make gray (one) or R, G, B (three), from 1; None: what the file says, else the first three
    level   of a pyramid: 0 is the full size; None: the smallest that `enough` is content with
    enough  from the picture's size (H, W) to one that suffices; None: only the full size does
    """

    depth: Depth = "percentile"
    page: int = 0
    bands: tuple[int, ...] | None = None
    level: int | None = None
    enough: Callable[[Size], Size] | None = None


@dataclass(frozen=True)
class Decoded:
    """An image as a viewer shows it.

    image        RGB uint8 [h, w, 3], orientation applied; black where there is no data, white where it is transparent
    valid        bool [h, w]: False where the file says that it holds no data; None: it holds data everywhere
    size         (H, W) of the picture: larger than the image's own where a smaller level of a pyramid was enough
    depth_rule   how deeper than 8-bit samples were mapped to 8 bits, None when they were 8-bit
    pages        how many full images the file has
    orientation  EXIF's 1..8: the turn that was taken
    warnings     what was left out, or read in another way than it might be, a sentence each
    """

    image: Array
    valid: Array | None = None
    size: Size = (0, 0)
    depth_rule: str | None = None
    pages: int = 1
    orientation: int = 1
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size == (0, 0):
            object.__setattr__(self, "size", self.image.shape[:2])


class Encoded(NamedTuple):
    """An image in its file, its header read and within the limits.

    size           (H, W) as it will be shown
    working_bytes  that decoding it, and bringing it to a network's size, holds at most
    decode         does it: raises ImageError and its kin
    seconds        of a core that it takes, about, where the header bounds that; infinite where it does not
    """

    size: Size
    working_bytes: int
    decode: Callable[[], Decoded]
    seconds: float = 0.0


def upright(image: Array, orientation: int) -> Array:
    """The image [H, W, …] as EXIF orientation 1..8 says a viewer shows it, contiguous."""
    if orientation in (2, 4, 5, 7):
        image = image[:, ::-1]
    quarter_turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(image, quarter_turns))
