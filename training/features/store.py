"""Frozen features of every crop and its nearest neighbors: computed once, kept on disk.

Knows nothing of losses or clusters. What is kept is named by everything that decides it (weights, sizes,
crops, the images), so a changed backbone can never meet another one's neighbors. A computation that was
killed goes on at the first crop it has not done: the backbone never sees a crop twice.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import TesseraError
from models.files import reserve, write_atomically
from models.nets.backbone import Backbone
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from models.types import Array
from training.config import precision
from training.config.run import Run, write_text
from training.data import crops, validity
from training.data.images import FEWEST_IMAGES, LEAST_VALID
from training.data.prefetch import prefetch
from training.progress import Progress

NEIGHBORS = 30  # kept per crop; STEGO draws from 7, the rest lets that number grow without a rescan
_VERSION = 2  # of what is on disk: raise it when the same key would hold other numbers
_BLOCK = 4096  # crops compared at once with all others


@dataclass(frozen=True)
class FeatureOptions:
    """What decides the features, apart from backbone, images and the recipe's [input].

    five_crop  five crops an image instead of the central square
    precision  of the numbers on disk; float16 halves them and changes cosines by about 1e-4
    """

    five_crop: bool = False
    precision: Literal["float16", "float32"] = "float16"
    batch_size: int = 16


@dataclass(frozen=True)
class Features:
    """Memory-mapped features: only what is read takes memory.

    maps       float16 or float32 [m, C, h, w], m crops
    neighbors  int64 [n, min(30, n - 1) + 1]; column 0 is the crop itself, then by falling similarity
    valid      bool [m, h, w], the cells that hold data; None: all of them
    kept       int64 [n], which of the m crops are used, those that hold enough of it; None: all of them
    """

    maps: Array
    neighbors: Array
    valid: Array | None = None
    kept: Array | None = None

    def __len__(self) -> int:
        return len(self.neighbors)

    def rows(self, indices: Sequence[int] | Array) -> Array:
        """Where some of the n crops stand among the m."""
        return np.asarray(indices) if self.kept is None else self.kept[indices]

    def batch(self, indices: Sequence[int] | Array, device: torch.device) -> Tensor:
        """float32 [B, C, h, w] of some crops."""
        return torch.from_numpy(np.stack([self.maps[i] for i in self.rows(indices)])).to(device).float()

    def mean(self, index: int) -> Tensor:
        """float32 [C] over a crop's cells, of those that hold data."""
        cpu = torch.device("cpu")
        return _means(self.batch([index], cpu), self.valid_cells([index], cpu))[0]

    def valid_cells(self, indices: Sequence[int] | Array, device: torch.device) -> Tensor | None:
        """Which of some crops' cells hold data: bool [B, h, w], some of every crop; None: all of them."""
        if self.valid is None:
            return None
        found = np.stack([self.valid[i] for i in self.rows(indices)])
        return None if found.all() else torch.from_numpy(found).to(device)


def open_features(encoder: Encoder, options: FeatureOptions, run: Run) -> Features:
    """The features of all the run's crops under the encoder's backbone, from disk where they are there.

    Raises TesseraError when the crops' size does not fit the backbone, the disk is too small, or too few hold data.
    """
    backbone, size = encoder.backbone, run.recipe.input.train_size
    if size % backbone.multiple:
        near = max(1, round(size / backbone.multiple)) * backbone.multiple
        raise TesseraError(
            f"crops of {size} pixels do not divide into cells of {backbone.multiple}: set input.train_size to {near}"
        )
    folder = run.cache / f"features-{_key(backbone, options, run)}"
    folder.mkdir(parents=True, exist_ok=True)
    side = size // backbone.stride
    n = len(run.images) * (5 if options.five_crop else 1)
    maps = _array(folder / "maps.npy", (n, backbone.channels, side, side), options.precision)
    means = _array(folder / "means.npy", (n, backbone.channels), "float32")
    valid = _array(folder / "valid.npy", (n, side, side), "bool")
    _fill(maps, means, valid, folder / "done", encoder, options, run)
    share = valid.mean((1, 2))
    kept = np.flatnonzero(share >= LEAST_VALID)
    if len(kept) < min(n, FEWEST_IMAGES):
        raise TesseraError(
            f"{len(kept)} of {n} crops hold data in {LEAST_VALID:.0%} of their cells, {FEWEST_IMAGES} are needed:"
            " choose other images, or a larger input.train_size"
        )
    found = folder / "neighbors.npy"
    if not found.exists():
        nearest = neighbors(torch.from_numpy(means[kept]).to(run.device)).cpu().numpy()
        write_atomically(found, lambda file: np.save(file, nearest))
    opened = Features(np.load(folder / "maps.npy", mmap_mode="r"), np.load(found))
    return opened if (share == 1).all() else replace(opened, valid=valid, kept=kept)


def neighbors(means: Tensor, k: int = NEIGHBORS) -> Tensor:
    """The crops most like each one, by cosine: int64 [n, min(k, n - 1) + 1]; column 0 is the crop itself.

    means  float [n, C]  spatial means of the features, over the cells that hold data

    Upstream leaves channel dropout on while it computes these; here nothing is random.
    Source: STEGO (arXiv:2203.08414) §4.1.
    """
    unit = F.normalize(means, dim=1)
    keep = min(k + 1, len(unit))
    rows = []
    for start in range(0, len(unit), _BLOCK):
        similar = unit[start : start + _BLOCK] @ unit.T
        own = torch.arange(len(similar), device=similar.device)
        similar[own, own + start] = torch.inf  # first, even beside an exact copy of itself
        rows.append(similar.topk(keep, dim=1).indices)
    return torch.cat(rows)


def thumbnails(side: int, options: FeatureOptions, run: Run) -> Array:
    """The crops that the features are of, `side` pixels a side: uint8 [n, side, side, 3], in the same order."""
    return np.concatenate([pixels for pixels, _ in _crops(side, range(len(run.images)), options, run)])


def _crops(side: int, images: range, options: FeatureOptions, run: Run) -> Iterator[tuple[Array, list[Array | None]]]:
    """Every image's crops, loaded ahead in threads: uint8 [1 or 5, side, side, 3], and of each where it holds data."""

    def parts(whole: Array) -> list[Array]:
        return crops.five(whole) if options.five_crop else [whole]

    def load(i: int) -> tuple[Array, list[Array | None]]:
        decoded = run.images.load(i)
        pixels = [crops.square(part, side, run.recipe.input.interpolation) for part in parts(decoded.image)]
        if decoded.valid is None:
            return np.stack(pixels), [None] * len(pixels)
        return np.stack(pixels), [crops.square(part, side, "nearest") for part in parts(decoded.valid)]

    return prefetch(load, images, run.recipe.workers)


def digest(module: nn.Module) -> str:
    """sha256 over the names, shapes and values of a network's weights."""
    seen = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        seen.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        seen.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()


def _key(backbone: Backbone, options: FeatureOptions, run: Run) -> str:
    inner = backbone.inner if isinstance(backbone, TokenBackbone) else backbone
    facts = {
        "version": _VERSION,
        "weights": digest(backbone),
        "features": inner.features,
        "images": run.images.digest,
        "bands": run.images.bands,
        "size": run.recipe.input.train_size,
        "five_crop": options.five_crop,
        "interpolation": run.recipe.input.interpolation,
        "precision": options.precision,
        "conventions": [backbone.normalization.model_dump(), inner.resampling],
    }
    if precision.reduced(run.recipe.compute.precision, run.device):
        facts["compute"] = "bfloat16"
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> Array:
    """A memory-mapped array of that shape, created when there is none."""
    if path.exists():
        found: Array = np.load(path, mmap_mode="r+")
        if found.shape == shape:
            return found
    path.with_name("done").unlink(missing_ok=True)
    needed, free = int(np.prod(shape)) * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise TesseraError(
            f"the features take {needed / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB left:"
            " choose another --out, a smaller input.train_size, five_crop = false or fewer images"
        )
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    reserve(path)
    return made


def _fill(
    maps: Array, means: Array, valid: Array, done: Path, encoder: Encoder, options: FeatureOptions, run: Run
) -> None:
    """Computes what is missing, in order; `done` holds how many crops are safely on disk."""
    per_image = 5 if options.five_crop else 1
    first = int(done.read_text()) if done.exists() else 0
    if first >= len(maps):
        return

    todo = range(first // per_image, len(run.images))  # batches end at whole images
    loaded = _crops(run.recipe.input.train_size, todo, options, run)
    encoder.eval()
    with torch.inference_mode(), Progress(run.console, "features", len(run.images), done=todo.start) as bar:
        for start, pixels, masks in _batches(loaded, todo.start, options.batch_size):
            x = torch.from_numpy(pixels).to(run.device).permute(0, 3, 1, 2).float()
            with precision.autocast(run.recipe.compute.precision, run.device):
                found = encoder.backbone((x - encoder.mean) / encoder.std)
            rows = slice(start * per_image, start * per_image + len(pixels))
            grid = maps.shape[2:]
            known = validity.stacked([validity.cells(mask, grid) for mask in masks], (grid[0], grid[1]))
            means[rows] = _means(found.float(), known).cpu().numpy()
            maps[rows] = found.to(getattr(torch, options.precision)).cpu().numpy()
            valid[rows] = True if known is None else known.numpy()
            for array in (maps, means, valid):
                array.flush()  # type: ignore[attr-defined]
            write_text(done, str(rows.stop))
            bar.advance(len(pixels) // per_image)


def _means(maps: Tensor, valid: Tensor | None) -> Tensor:
    """Spatial means [B, C] of maps [B, C, h, w], over the cells that hold data; 0 where none does."""
    if valid is None:
        return maps.mean((2, 3))
    inside = valid.to(maps)[:, None]
    return (maps * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)


def _batches(
    loaded: Iterator[tuple[Array, list[Array | None]]], first: int, size: int
) -> Iterator[tuple[int, Array, list[Array | None]]]:
    """(number of the first image, crops of whole images, where they hold data), about `size` crops at a time."""
    waiting: list[tuple[Array, list[Array | None]]] = []

    def together() -> tuple[int, Array, list[Array | None]]:
        return (
            first,
            np.concatenate([pixels for pixels, _ in waiting]),
            [mask for _, masks in waiting for mask in masks],
        )

    for one in loaded:
        waiting.append(one)
        if sum(len(pixels) for pixels, _ in waiting) >= size:
            yield together()
            first, waiting = first + len(waiting), []
    if waiting:
        yield together()
