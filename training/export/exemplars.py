"""Patches that show what a cluster is.

Knows nothing of files or networks: images and their label maps in, WebP patches out. Either real patches
with the cluster's region lit, or, where no photo may be shown, the mean of many patches: 16 cells
a side, of at least eight different images, so that none of them can be recognized.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from models.io import encode as encode_module
from models.preprocess import resize
from models.types import Array

_SIDE_PX = 128  # of a patch as it is shown
_SHARE = 0.32  # of the image's short side that a patch covers
_SEARCHED = 80  # rows or columns, whichever are fewer
_FILLED = 0.75  # a region that fills more of its patch is no better: its outline would be lost
_MEAN_CELLS = 16
_MEAN_OF = 64
_MEAN_LEAST = 8


@dataclass(order=True)
class _Patch:
    worth: float
    number: int  # of the image: one patch each, and ties go to the earlier one
    pixels: Array = field(compare=False)
    mask: Array = field(compare=False)


class ExemplarPicker:
    """The best patches of every cluster among the images it is shown.

    keep  patches per cluster; 0: mean patches, which show no single photo
    """

    def __init__(self, k: int, keep: int) -> None:
        self.keep = keep
        self._room = keep or _MEAN_OF
        self._patches: list[list[_Patch]] = [[] for _ in range(k)]
        self._color_sums = np.zeros((k, 3))
        self._color_counts = np.zeros(k)

    def show(self, number: int, image: Array, labels: Array, margin: Array) -> None:
        """One image: RGB uint8 [H, W, 3], its labels uint8 [h, w] and how sure each is, float32 [h, w].

        Labels that are no cluster's show no data.
        """
        small = resize(image, (labels.shape[0], labels.shape[1]))
        side = max(4, round(_SHARE * min(labels.shape)))
        # Where a patch should lie is looked for on every step-th row and column only: sixteen times less work.
        step = max(1, min(labels.shape) // _SEARCHED)
        coarse, sure = labels[::step, ::step], margin[::step, ::step]
        reach = max(1, side // step)
        for cluster in np.unique(labels[labels < len(self._patches)]).tolist():
            mask = labels == cluster
            self._color_sums[cluster] += small[mask].sum(0)
            self._color_counts[cluster] += mask.sum()
            there = (coarse == cluster).astype(np.float32)
            filled = ndimage.uniform_filter(there, reach, mode="constant")
            certain = ndimage.uniform_filter(there * sure, reach, mode="constant") / np.maximum(filled, 1e-6)
            worth = np.minimum(filled, _FILLED) + 0.5 * certain * (filled > 1e-6)
            half = reach // 2
            inner = worth[half : worth.shape[0] - half, half : worth.shape[1] - half]
            if not inner.size:
                continue
            top, left = (int(at) * step for at in np.unravel_index(int(inner.argmax()), inner.shape))
            value = float(inner.max())
            patches = self._patches[cluster]
            if len(patches) == self._room and value <= patches[-1].worth:
                continue
            patches.append(_Patch(value, -number, *_cut(image, mask, top, left, side)))
            patches.sort(reverse=True)
            del patches[self._room :]

    def encode(self) -> dict[int, list[bytes]]:
        """WebP files by cluster; clusters nobody saw are left out."""
        if self.keep:
            return {k: [_webp(_lit(p)) for p in patches] for k, patches in enumerate(self._patches) if patches}
        return {k: [_webp(self._mean(k))] for k in range(len(self._patches)) if self._color_counts[k]}

    def _mean(self, k: int) -> Array:
        patches = self._patches[k]
        color = self._color_sums[k] / max(self._color_counts[k], 1)
        if len(patches) < _MEAN_LEAST:
            return np.broadcast_to(color.round().astype(np.uint8), (_SIDE_PX, _SIDE_PX, 3))
        cells = [resize(p.pixels, (_MEAN_CELLS, _MEAN_CELLS)) for p in patches]
        mean = np.mean(cells, axis=0).round().astype(np.uint8)
        return np.asarray(Image.fromarray(mean).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC))


def _cut(image: Array, mask: Array, top: int, left: int, side: int) -> tuple[Array, Array]:
    """The square at (top, left) of the label grid from the full image: uint8 [128, 128, 3], bool [128, 128]."""
    height, width = mask.shape
    down, across = image.shape[0] / height, image.shape[1] / width
    box = (left * across, top * down, min(left + side, width) * across, min(top + side, height) * down)
    shown = (_SIDE_PX, _SIDE_PX)
    pixels = Image.fromarray(image).resize(shown, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    inside = Image.fromarray(mask[top : top + side, left : left + side].astype(np.uint8) * 255)
    lit = np.asarray(inside.resize(shown, Image.Resampling.BILINEAR)) > 127
    return np.asarray(pixels), lit


def _lit(patch: _Patch) -> Array:
    """The patch with its region outlined in white on black, and what is not in the region darkened."""
    out = np.where(patch.mask[..., None], patch.pixels, patch.pixels * 0.45)
    if not patch.mask.all():
        outline = patch.mask & ~ndimage.binary_erosion(patch.mask, iterations=2, border_value=1)
        shadow = ndimage.binary_dilation(patch.mask, iterations=2) & ~patch.mask
        out[shadow] = 0
        out[outline] = 255
    return out.astype(np.uint8)


def _webp(pixels: Array) -> bytes:
    return encode_module.encode(np.ascontiguousarray(pixels), "webp", 82)
