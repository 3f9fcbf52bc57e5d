"""What the regions of some images show: which clusters are in them, what the network says of them, how rough they are.

Knows nothing of what that says of the clusters (belonging.py), or of labels: images, their label maps and codes in, one
row per region out. Bounded: of many or large images so many rows are drawn.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy import sparse

from models.preprocess import resize
from models.types import Array
from training.config.recipe import Section
from training.data import regions
from training.data.label_maps import IGNORED

TEXTURES = 5  # columns: spread of L, a and b within a region, mean change of L across and down


class RegionEvidenceOptions(Section):
    """How images are cut, and how much of them is kept."""

    images: int = Field(default=300, ge=1, description="drawn evenly from more")
    pixels: int = Field(default=76_800, ge=1, description="of an image as it is cut, 240 × 320; larger ones are shrunk")
    scale: float = Field(default=100.0, gt=0, description="Felzenszwalb's: larger means larger regions")
    contrast: float = Field(default=0.01, ge=0, le=1, description="clip limit of the equalization before the cut")
    regions: int = Field(default=12_000, ge=1, description="of all images together; each gives its share of them")


@dataclass(frozen=True)
class RegionEvidence:
    """One row per region.

    shares   float32 [R, K]  of the region's pixels that are in each cluster; a row sums to 1
    codes    float32 [R, D]  mean of the code over the region
    texture  float32 [R, 5]  standard deviations of L, a, b, then mean |dL/dx| and |dL/dy|, of the equalized image
    image    int64 [R]       which image it is of
    """

    shares: Array
    codes: Array
    texture: Array
    image: Array

    def __len__(self) -> int:
        return len(self.image)


class RegionCollector:
    """Collects the rows of images that it is shown one after the other.

    images  how many there will be;  seed  of which regions are drawn where an image has too many
    """

    def __init__(self, k: int, images: int, options: RegionEvidenceOptions | None = None, *, seed: int = 0) -> None:
        self._k, self._options, self._seed = k, options or RegionEvidenceOptions(), seed
        self._each = max(1, self._options.regions // max(1, min(images, self._options.images)))
        self._rows: list[RegionEvidence] = []

    def show(self, number: int, image: Array, labels: Array, code: Array) -> None:
        """One image RGB uint8 [H, W, 3], its label map uint8 [H, W], 255 where no data is, its code float [D, h, w]."""
        options = self._options
        size = _within(image.shape[:2], options.pixels)
        even = resize(image, size)
        if options.contrast:
            even = regions.equalize(even, options.contrast)
        ids = regions.segment(even, scale=options.scale, min_size_px=regions.smallest(options.scale)).astype(np.int64)
        labels = labels[_nearest(labels.shape[0], size[0])][:, _nearest(labels.shape[1], size[1])]
        known = labels != IGNORED
        if not known.any():
            return
        _, inside = np.unique(ids[known], return_inverse=True)  # regions without data are none
        count = int(inside.max()) + 1
        dense = np.full(ids.shape, -1, np.int64)
        dense[known] = inside
        texture, pixels = textures(even, dense, count)
        shares = np.bincount(inside * self._k + labels[known], minlength=count * self._k).reshape(count, self._k)
        depth, height, width = code.shape
        cell = _nearest(height, size[0])[:, None] * width + _nearest(width, size[1])
        # A region's pixels in every cell: with cells larger than regions each region still has a code.
        within = sparse.csr_array((np.ones(len(inside), np.float32), (inside, cell[known])), (count, height * width))
        codes = within @ code.reshape(depth, -1).T.astype(np.float32)
        chosen = np.arange(count)
        if count > self._each:
            chosen = np.sort(np.random.default_rng([self._seed, number]).choice(count, self._each, replace=False))
        rows = (shares / pixels[:, None], codes / pixels[:, None], texture)
        shared, coded, rough = (np.asarray(part[chosen], np.float32) for part in rows)
        self._rows.append(RegionEvidence(shared, coded, rough, np.full(len(chosen), number, np.int64)))

    def evidence(self) -> RegionEvidence | None:
        """The rows of all images; None where no image held data."""
        if not self._rows:
            return None
        names = RegionEvidence.__dataclass_fields__
        return RegionEvidence(*(np.concatenate([getattr(one, name) for one in self._rows]) for name in names))


def textures(image: Array, ids: Array, count: int) -> tuple[Array, Array]:
    """Texture of every region of an image, float64 [count, 5], and its pixels, float64 [count].

    image  RGB uint8 [H, W, 3];  ids  int64 [H, W], 0..count-1, negative where no data is

    The standard deviations of L, a and b within the region, then the mean of |dL/dx| and of |dL/dy|. Regions without a
    pixel have 0.
    """
    from skimage.color import rgb2lab  # half a second to import

    lab, known = rgb2lab(image), ids >= 0
    inside = ids[known]
    pixels = np.bincount(inside, minlength=count).astype(np.float64)

    def mean(values: Array) -> Array:
        found: Array = np.bincount(inside, values[known], minlength=count) / pixels.clip(1)
        return found

    spreads = [np.sqrt(np.maximum(mean(one**2) - mean(one) ** 2, 0)) for one in np.moveaxis(lab, -1, 0)]
    across, down = (
        np.abs(np.gradient(lab[..., 0], axis=axis)) if lab.shape[axis] > 1 else np.zeros(lab.shape[:2])
        for axis in (1, 0)
    )
    return np.stack([*spreads, mean(across), mean(down)], axis=1), pixels


def _within(size: tuple[int, ...], pixels: int) -> tuple[int, int]:
    """A size of the same shape with at most about so many pixels."""
    scale = min(1.0, (pixels / (size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _nearest(length: int, wanted: int) -> Array:
    """Which of `length` rows each of `wanted` rows lies in: int64 [wanted]."""
    found: Array = ((np.arange(wanted) + 0.5) * length / wanted).astype(np.int64)
    return found
