"""Principal mask proposals (PriMaPs): an image's frozen features fall apart into masks, each around one place.

Knows nothing of networks, clusters or labels: features and pixels in, masks out, computed once and kept beside the
features. A computation that was killed goes on at the first images it has not done.

Where paper and published code disagree it is as the code does: the principal direction is of centered features, the
cosines are of features as they are. Ours: a direction, which has no sign, faces the mean of the features left, and the
seed is always one of these; so every round takes something away, and no rounds that change nothing are to be counted.

Source: Hahn et al., Boosting Unsupervised Semantic Segmentation with Principal Mask Proposals (arXiv:2404.16818) §3.1.
"""

import hashlib
import math
from functools import partial
from itertools import islice

import numpy as np

from models import assign
from models.crf.dense import refine
from models.crf.params import CRFParams
from models.terminal.progress import Progress
from models.types import Array
from training import distributed
from training.config.run import Run
from training.data.prefetch import prefetch
from training.features.row_file import RowFile, divided
from training.features.store import Features

NO_MASK = 0  # of pixels that are in no mask, or hold no data
THRESHOLD = 0.4  # of the largest cosine, from which on a place belongs to a mask
_VERSION = 1  # of what is on disk: raise it when the same features would fall apart otherwise
_USED = 0.95  # of the places, after which no further mask is cut out
_MOST = 255  # masks of one image: their numbers are bytes
_GAIN = 10.0  # of the cosines, before they are cut off at 1: masks become nearly hard
_CRF = CRFParams()  # as published: those of STEGO
_BLOCK = 16  # images that are done or not done together


def proposals(features: Array, *, threshold: float = THRESHOLD, valid: Array | None = None) -> Array:
    """The masks of one image: float32 [M, h, w], each 1 at its seed and 0 below the threshold, which do not overlap.

    features   float [C, h, w]
    threshold  share of a round's largest cosine with the seed
    valid      bool [h, w], the cells that hold data; None: all of them

    Each round takes the principal direction of what is left, of what is left the place most like it, and all that is
    as like that place as the threshold asks.
    """
    flat = features.reshape(len(features), -1).T.astype(np.float32)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    left = np.arange(len(flat)) if valid is None else np.flatnonzero(valid)
    rest, masks = (1 - _USED) * len(left), list[Array]()
    while len(left) > rest and len(masks) < _MOST:
        seed = left[(unit[left] @ principal_direction(flat[left])).argmax()]
        alike = unit[left] @ unit[seed]
        taken = (alike >= threshold * alike.max()) | (left == seed)
        mask = np.zeros(len(flat), np.float32)
        mask[left[taken]] = alike[taken]
        mask[seed] = 1.0
        masks.append(mask)
        left = left[~taken]
    return np.array(masks, np.float32).reshape(-1, *features.shape[1:])


def principal_direction(points: Array) -> Array:
    """The direction of length 1 in which points [n, C] vary most about their mean, float32 [C]; it faces that mean."""
    mean = points.mean(axis=0)
    centered = points - mean
    found: Array = np.linalg.eigh(centered.T @ centered)[1][:, -1]
    return found if found @ mean >= 0 else -found


def refined(masks: Array, image: Array) -> Array:
    """The mask of every pixel, from 1, or NO_MASK: uint8 [H, W].

    masks  float32 [M, h, w] of `proposals`;  image  uint8 [H, W, 3]

    A median of 3 × 3 cells, a background of what the masks leave, then the dense CRF at the image's size.
    """
    if not len(masks):
        return np.zeros(image.shape[:2], np.uint8)
    found = np.minimum(_GAIN * _median(masks), 1)
    mean = found[found > 0].mean() if found.any() else 1.0
    background = np.clip(mean - found.sum(axis=0), 0, 1)
    scores = np.concatenate([background[None], found]).astype(np.float32)
    likely = assign.probabilities(scores, None, image.shape[:2], temperature=1.0, assignment="dot")
    labels: Array = refine(likely, image, _CRF).labels
    return labels


def _median(masks: Array) -> Array:
    """Of every cell and its eight neighbors; beyond the border lies the border again. float32 [M, h, w]"""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    found: Array = np.median(around, axis=(3, 4))
    return found


def open_masks(
    features: Features, pixels: RowFile, run: Run, *, threshold: float = THRESHOLD, center: Array | None = None
) -> RowFile:
    """The mask of every pixel of every crop that the features are of, uint8 [m, S, S], from disk where it is there.

    pixels  uint8 [m, S, S, 3], the crops (training/features/store.py: `thumbnails` of their own size)
    center  float32 [C], taken off the features before; None: nothing is
    """
    assert isinstance(features.maps, RowFile)
    count, side = pixels.shape[:2]
    around = "" if center is None else f"-{hashlib.sha256(center.tobytes()).hexdigest()[:8]}"
    path = features.maps.path.with_name(f"masks-{_VERSION}-{threshold:g}{around}.npy")
    with distributed.main_first():
        if not path.exists():
            path.with_suffix(".done.npy").unlink(missing_ok=True)
            RowFile.create(path, (count, side, side), "uint8")
    found = RowFile(path)
    with divided(path.with_suffix(".done.npy"), math.ceil(count / _BLOCK), found) as (ledger, mine):
        crops = [i for block in mine for i in range(block * _BLOCK, min(count, (block + 1) * _BLOCK))]
        cut = prefetch(partial(_cut, features, pixels, threshold, center), crops, run.recipe.workers)
        total = count if distributed.world() == 1 else len(crops)
        with Progress(run.console, "masks", total, done=total - len(crops)) as bar:
            for block in mine:
                some = list(islice(cut, min(_BLOCK, count - block * _BLOCK)))
                found[block * _BLOCK : block * _BLOCK + len(some)] = np.stack(some)
                ledger.add(block)
                bar.advance(len(some))
    return found


def _cut(features: Features, pixels: RowFile, threshold: float, center: Array | None, crop: int) -> Array:
    """The masks of one of the m crops, uint8 [S, S]."""
    valid = None if features.valid is None else features.valid[crop]
    image, maps = pixels[crop], features.maps[crop].astype(np.float32)
    maps = maps if center is None else maps - center[:, None, None]
    found = refined(proposals(maps, threshold=threshold, valid=valid), image)
    if valid is not None:
        found[~enlarged(valid, image.shape[:2])] = NO_MASK
    return found


def enlarged(cells: Array, size: tuple[int, ...]) -> Array:
    """A map [h, w] of cells as one of pixels, [H, W]: each is what the cell is in which it lies."""
    rows, columns = (np.arange(n) * have // n for n, have in zip(size, cells.shape, strict=True))
    found: Array = cells[rows][:, columns]
    return found
