"""What the network leaves of an image, as it is kept for the same image asked again; and what its file says of it.

Knows nothing of how it is computed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.familiarity import Tally
from models.io.samples import Decoded
from models.manifest import Manifest
from models.types import Array, Box
from service.formats.result import NO_DATA

_STRIP_PX = 2**20


@dataclass(frozen=True)
class Validity:
    """Where a picture holds data, a bit for each pixel of a map of any size that shows it: nearest pixels stand for it.

    bits   uint8 [h, ceil(w / 8)], as numpy.packbits has them
    shape  (h, w)
    """

    bits: Array
    shape: tuple[int, int]

    @classmethod
    def of(cls, valid: Array | None) -> "Validity | None":
        """Of bool [h, w]; None where it is True everywhere."""
        if valid is None or valid.all():
            return None
        return cls(np.packbits(valid, axis=1), (int(valid.shape[0]), int(valid.shape[1])))

    def at(self, y: int, x: int, size: tuple[int, int]) -> bool:
        """Whether a pixel of the picture, whose size is (H, W), holds data."""
        row, column = (
            _nearest(np.array([y]), size[0], self.shape[0])[0],
            _nearest(np.array([x]), size[1], self.shape[1])[0],
        )
        return bool(self.bits[row, column // 8] >> (7 - column % 8) & 1)

    def erase(self, map_: Array, value: float = NO_DATA) -> Array:
        """A map [H, W] that shows the picture, set to `value` in place where that holds no data."""
        height, width = map_.shape
        columns = _nearest(np.arange(width), width, self.shape[1])
        step = max(1, _STRIP_PX // width)
        for top in range(0, height, step):
            strip = map_[top : top + step]
            rows = _nearest(np.arange(top, top + len(strip)), height, self.shape[0])
            valid = np.unpackbits(self.bits[rows], axis=1, count=self.shape[1])
            strip[(valid if width == self.shape[1] else valid[:, columns]) == 0] = value
        return map_


def _nearest(at: Array, size: int, of: int) -> Array:
    """Indices of an axis of length `of` that lie nearest to those of the same axis drawn with length `size`."""
    return (2 * at + 1) * of // (2 * size)


@dataclass(frozen=True)
class Facts:
    """What a file says of its image, besides the pixels; `models.io.samples.Decoded` has the words.

    valid  None: it holds data everywhere
    """

    valid: Validity | None = None
    depth_rule: str | None = None
    pages: int = 1
    orientation: int = 1
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, decoded: Decoded) -> "Facts":
        """Of an image that was decoded."""
        valid = Validity.of(decoded.valid)
        return cls(valid, decoded.depth_rule, decoded.pages, decoded.orientation, decoded.warnings)


@dataclass(frozen=True)
class NetworkOutput:
    """What one pass of the network leaves of an image: scores [K, h, w], code [D, h, w] where asked for, what is
    needed to find the way back to the image's own size, and what its file says.

    large  answers of this size have threads of their own;  slow  its pixels are not decoded by whoever needs them
    tally   of its cells, where it was seen in windows
    labels, margin  of an image that was seen in windows, in place of scores and code: uint8 [H, W]; float32 of any size
    ids     uint8 [M]: the class of each score map, where these are of classes that people taught; None: of clusters
    serial  of that moment of the classes; 0: clusters;  temperature  theirs, where it is not the network's
    """

    scores: Array
    code: Array | None
    source: tuple[int, int]
    box: Box
    facts: Facts
    large: bool = False
    slow: bool = False
    labels: Array | None = None
    margin: Array | None = None
    ids: Array | None = None
    serial: int = 0
    temperature: float | None = None
    tally: Tally | None = None

    @property
    def nbytes(self) -> int:
        """Held in memory."""
        valid = self.facts.valid
        arrays = (self.scores, self.code, self.labels, self.margin, None if valid is None else valid.bits)
        return sum(array.nbytes for array in arrays if array is not None)


class Known(NamedTuple):
    """How familiar an image is: the share of the training images that were less sure, and whether it is like them.

    None where the bundle does not say how sure its network was, or no cell holds data.
    """

    familiarity: float | None = None
    familiar: bool | None = None

    @classmethod
    def of(cls, tally: Tally, manifest: Manifest) -> "Known":
        """What an image's cells say."""
        spec, sure = manifest.familiarity, tally.sureness([cluster.fraction for cluster in manifest.clusters])
        if spec is None or sure is None:
            return cls()
        return cls(round(spec.of(sure), 4), sure >= spec.threshold)


UNKNOWN = Known()
