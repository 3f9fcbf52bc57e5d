"""Pixels that come without a file: they go the way of a file's, and no codec is met.

Knows nothing of file formats, of what the pixels show.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from models.io.picture import RESIZING_BYTES, RGB_BYTES, check_bands
from models.io.samples import Choice, Decoded, Encoded, Limits, NoSuchPart
from models.types import Array

_NS = 1  # of a core, for a pixel whose bands change places


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image RGB uint8 [H, W, 3], contiguous, where the bytes of a file may stand."""

    image: Array

    def __len__(self) -> int:
        return self.image.nbytes

    def digest(self) -> bytes:
        """Of the pixels and their shape; no file has the same."""
        digest = hashlib.sha256(f"pixels {self.image.shape}\n".encode())
        digest.update(self.image.reshape(-1).data)
        return digest.digest()

    def inspect(self, limits: Limits, choice: Choice) -> Encoded:
        """As `models.io.decode.inspect` has it. Raises ImageTooLarge, ImageError for none, NoSuchPart."""
        height, width = self.image.shape[:2]
        limits.check_size(height, width)
        if choice.page or choice.level:
            raise NoSuchPart("pixels have no pages and no pyramid; leave `page` and `pyramid` out")
        check_bands(choice.bands, 3)
        moved = choice.bands not in (None, (1, 2, 3))
        working = height * width * max(RGB_BYTES if moved else 0, RESIZING_BYTES)
        return Encoded((height, width), working, lambda: self._decoded(choice), 1e-9 * height * width * _NS)

    def _decoded(self, choice: Choice) -> Decoded:
        if choice.bands in (None, (1, 2, 3)):
            return Decoded(self.image)
        bands = [band - 1 for band in choice.bands * (3 // len(choice.bands))]
        return Decoded(np.ascontiguousarray(self.image[..., bands]))
