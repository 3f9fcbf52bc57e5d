"""Patches that show what a cluster is.

Knows nothing of files or networks: images and their label maps in, WebP patches out. Either real patches
with the cluster's region lit, each of another image and unlike the others, or, where no photo may be shown, the mean of
many patches: 16 cells a side, of at least eight different images, so that none of them can be recognized.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from models.io import encode as encode_module
from models.preprocess import resize
from models.types import Array
from training.clustering.k_center import k_center

_SIDE_PX = 128  # of a patch as it is shown
_SHARE = 0.32  # of the image's short side that a patch covers
_SEARCHED = 80  # rows or columns, whichever are fewer
_FILLED = 0.75  # a region that fills more of its patch is no better: its outline would be lost
_ENOUGH = 0.25  # of a patch: of smaller regions it counts less how sure they are than how large
_POOL = 4  # times as many patches as are kept, of the best: the kept ones are chosen from them for variety
_LARGEST_POOL = 24  # of a cluster: 64 kB each
_LEAST_WORTH = 0.5  # of the best one's
_MEAN_CELLS = 16
_MEAN_OF = 64
_MEAN_LEAST = 8


@dataclass(order=True)
class _Patch:
    worth: float
    number: int  # of the image: one patch each, and ties go to the earlier one
    pixels: Array = field(compare=False)
    mask: Array = field(compare=False)
    code: Array = field(compare=False)


class ExemplarPicker:
    """Good and varied patches of every cluster among the images it is shown.

    keep  patches per cluster; 0: mean patches, which show no single photo
    """

    def __init__(self, k: int, keep: int) -> None:
        self.keep = keep
        self._room = max(keep, min(_POOL * keep, _LARGEST_POOL)) or _MEAN_OF
        self._patches: list[list[_Patch]] = [[] for _ in range(k)]
        self._color_sums = np.zeros((k, 3))
        self._color_counts = np.zeros(k)

    def show(self, number: int, image: Array, labels: Array, margin: Array, code: Array) -> None:
        """One image: RGB uint8 [H, W, 3], its labels uint8 [h, w], how sure each is, float32 of any size, its code.

        code  float32 [D, h', w'], of any grid

        Labels that are no cluster's show no data.
        """
        side = max(4, round(_SHARE * min(labels.shape)))
        # Where a patch should lie is looked for on every step-th row and column only: sixteen times less work.
        step = max(1, min(labels.shape) // _SEARCHED)
        coarse = labels[::step, ::step]
        sure = _at(margin, coarse.shape)
        reach = max(1, side // step)
        if not self.keep:
            self._add_colors(image, labels)
        for cluster in np.unique(coarse[coarse < len(self._patches)]).tolist():
            there = (coarse == cluster).astype(np.float32)
            filled = ndimage.uniform_filter(there, reach, mode="constant")
            certain = ndimage.uniform_filter(there * sure, reach, mode="constant") / np.maximum(filled, 1e-6)
            worth = np.minimum(filled, _FILLED) + 0.5 * certain * np.minimum(filled / _ENOUGH, 1.0)
            half = reach // 2
            inner = worth[half : worth.shape[0] - half, half : worth.shape[1] - half]
            if not inner.size:
                continue
            top, left = (int(at) * step for at in np.unravel_index(int(inner.argmax()), inner.shape))
            value = float(inner.max())
            patches = self._patches[cluster]
            if len(patches) == self._room and value <= patches[-1].worth:
                continue
            mask = labels == cluster
            pixels, lit = _cut(image, mask, top, left, side)
            if not self.keep:
                pixels, lit = resize(pixels, (_MEAN_CELLS, _MEAN_CELLS)), lit[:0]
            inside = np.zeros_like(mask)
            inside[top : top + side, left : left + side] = mask[top : top + side, left : left + side]
            patches.append(_Patch(value, -number, pixels, lit, _mean_code(code, inside)))
            patches.sort(reverse=True)
            del patches[self._room :]

    def encode(self) -> dict[int, list[bytes]]:
        """WebP files by cluster, the best patch first; clusters nobody saw are left out."""
        if self.keep:
            return {k: [_webp(_lit(p)) for p in self._varied(patches)] for k, patches in self._seen()}
        return {k: [_webp(self._mean(k))] for k in range(len(self._patches)) if self._color_counts[k]}

    def _seen(self) -> list[tuple[int, list[_Patch]]]:
        return [(k, patches) for k, patches in enumerate(self._patches) if patches]

    def _varied(self, patches: list[_Patch]) -> list[_Patch]:
        good = [patch for patch in patches if patch.worth >= _LEAST_WORTH * patches[0].worth]
        good += patches[len(good) : self.keep]
        chosen = k_center(np.stack([patch.code for patch in good]), self.keep)
        return [good[place] for place in chosen]

    def _add_colors(self, image: Array, labels: Array) -> None:
        small = resize(image, (labels.shape[0], labels.shape[1])).reshape(-1, 3)
        known = labels.ravel() < len(self._patches)
        ids, k = labels.ravel()[known], len(self._patches)
        self._color_counts += np.bincount(ids, minlength=k)
        for channel in range(3):
            self._color_sums[:, channel] += np.bincount(ids, small[known, channel], minlength=k)

    def _mean(self, k: int) -> Array:
        patches = self._patches[k]
        color = self._color_sums[k] / max(self._color_counts[k], 1)
        if len(patches) < _MEAN_LEAST:
            return np.broadcast_to(color.round().astype(np.uint8), (_SIDE_PX, _SIDE_PX, 3))
        mean = np.mean([patch.pixels for patch in patches], axis=0).round().astype(np.uint8)
        return np.asarray(Image.fromarray(mean).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC))


def _at(values: Array, size: tuple[int, ...]) -> Array:
    """A map of any size at another one, by its nearest places."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    found: Array = values[rows][:, columns]
    return found


def _mean_code(code: Array, inside: Array) -> Array:
    """The direction of the code in a region: float32 [D], of length 1. inside  bool [H, W] of any size."""
    cells = _at(inside, code.shape[1:])
    mean: Array = code[:, cells].mean(axis=1) if cells.any() else code.mean(axis=(1, 2))
    return mean / max(float(np.linalg.norm(mean)), 1e-10)


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
