"""Frozen features of every crop and its nearest neighbors: computed once, kept on disk.

Knows nothing of losses or clusters. What is kept is named by everything that decides it (weights, sizes,
crops, the images), so a changed backbone can never meet another one's neighbors. A computation that was
killed goes on at the first crop it has not done: the backbone never sees a crop twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import TesseraError
from models.nets.backbone import VitBackbone
from models.nets.encoder import Encoder
from models.types import Array
from training.config.run import Run
from training.data import crops
from training.data.images import Images
from training.data.prefetch import prefetch
from training.progress import Progress

NEIGHBORS = 30  # kept per crop; STEGO draws from 7, the rest lets that number grow without a rescan
_VERSION = 1  # of what is on disk: raise it when the same key would hold other numbers
_BLOCK = 4096  # crops compared at once with all others


class FeatureError(TesseraError):
    """Features cannot be computed or kept as asked."""


@dataclass(frozen=True)
class FeatureOptions:
    """What decides the features, apart from backbone and images.

    size       side of the crops in pixels; a multiple of the backbone's stride
    five_crop  five crops an image instead of the central square
    precision  of the numbers on disk; float16 halves them and changes cosines by about 1e-4
    """

    size: int = 224
    five_crop: bool = False
    interpolation: crops.Interpolation = "bilinear"
    precision: Literal["float16", "float32"] = "float16"
    batch_size: int = 16


@dataclass(frozen=True)
class Features:
    """Memory-mapped features: only what is read takes memory.

    maps       float16 or float32 [n, C, h, w], n crops
    neighbors  int64 [n, min(30, n - 1) + 1]; column 0 is the crop itself, then by falling similarity
    """

    maps: Array
    neighbors: Array

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Sequence[int] | Array, device: torch.device) -> Tensor:
        """float32 [B, C, h, w] of some crops."""
        return torch.from_numpy(np.stack([self.maps[i] for i in indices])).to(device).float()


def open_features(encoder: Encoder, images: Images, options: FeatureOptions, run: Run) -> Features:
    """The features of all crops under the encoder's backbone, from disk where they are there.

    Raises FeatureError when the size does not fit the backbone or the disk is too small.
    """
    backbone = encoder.backbone
    if options.size % backbone.stride:
        near = max(1, round(options.size / backbone.stride)) * backbone.stride
        raise FeatureError(
            f"crops of {options.size} pixels do not divide into cells of {backbone.stride}:"
            f" set input.train_size to {near}"
        )
    folder = run.cache / f"features-{_key(backbone, images, options)}"
    folder.mkdir(parents=True, exist_ok=True)
    side = options.size // backbone.stride
    n = len(images) * (5 if options.five_crop else 1)
    maps = _array(folder / "maps.npy", (n, backbone.channels, side, side), options.precision)
    means = _array(folder / "means.npy", (n, backbone.channels), "float32")
    _fill(maps, means, folder / "done", encoder, images, options, run)
    found = folder / "neighbors.npy"
    if not found.exists():
        scratch = folder / "neighbors.part.npy"
        np.save(scratch, neighbors(torch.from_numpy(np.array(means)).to(run.device)).cpu().numpy())
        scratch.replace(found)
    return Features(np.load(folder / "maps.npy", mmap_mode="r"), np.load(found))


def neighbors(means: Tensor, k: int = NEIGHBORS) -> Tensor:
    """The crops most like each one, by cosine: int64 [n, min(k, n - 1) + 1]; column 0 is the crop itself.

    means  float [n, C]  spatial means of the features

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


def thumbnails(images: Images, options: FeatureOptions, side: int, run: Run) -> Array:
    """The crops that the features are of, `side` pixels a side: uint8 [n, side, side, 3], in the same order."""

    def load(i: int) -> Array:
        return np.stack([crops.square(part, side, options.interpolation) for part in _parts(images[i], options)])

    return np.concatenate(list(prefetch(load, range(len(images)), run.recipe.workers)))


def _parts(image: Array, options: FeatureOptions) -> list[Array]:
    return crops.five(image) if options.five_crop else [image]


def digest(module: nn.Module) -> str:
    """sha256 over the names, shapes and values of a network's weights."""
    seen = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        seen.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        seen.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()


def _key(backbone: nn.Module, images: Images, options: FeatureOptions) -> str:
    facts = {
        "version": _VERSION,
        "weights": digest(backbone),
        "features": next((m.features for m in backbone.modules() if isinstance(m, VitBackbone)), "tokens"),
        "images": images.digest,
        "size": options.size,
        "five_crop": options.five_crop,
        "interpolation": options.interpolation,
        "precision": options.precision,
    }
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
        raise FeatureError(
            f"the features take {needed / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB left:"
            " choose another --out, a smaller input.train_size, five_crop = false or fewer images"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def _fill(
    maps: Array, means: Array, done: Path, encoder: Encoder, images: Images, options: FeatureOptions, run: Run
) -> None:
    """Computes what is missing, in order; `done` holds how many crops are safely on disk."""
    per_image = 5 if options.five_crop else 1
    first = int(done.read_text()) if done.exists() else 0
    if first >= len(maps):
        return

    def load(i: int) -> Array:
        parts = _parts(images[i], options)
        return np.stack([crops.square(part, options.size, options.interpolation) for part in parts])

    todo = range(first // per_image, len(images))  # batches end at whole images
    encoder.eval()
    with torch.inference_mode(), Progress(run.console, "features", len(images), done=todo.start) as bar:
        for start, pixels in _batches(prefetch(load, todo, run.recipe.workers), todo.start, options.batch_size):
            x = torch.from_numpy(pixels).to(run.device).permute(0, 3, 1, 2).float()
            found = encoder.backbone((x - encoder.mean) / encoder.std)
            rows = slice(start * per_image, start * per_image + len(pixels))
            means[rows] = found.mean((2, 3)).float().cpu().numpy()
            maps[rows] = found.to(getattr(torch, options.precision)).cpu().numpy()
            maps.flush()  # type: ignore[attr-defined]
            means.flush()  # type: ignore[attr-defined]
            scratch = done.with_suffix(".part")
            scratch.write_text(str(rows.stop))
            scratch.replace(done)
            bar.advance(len(pixels) // per_image)


def _batches(loaded: Iterator[Array], first: int, size: int) -> Iterator[tuple[int, Array]]:
    """(number of the first image, crops of whole images), about `size` crops at a time."""
    waiting: list[Array] = []
    for pixels in loaded:
        waiting.append(pixels)
        if sum(map(len, waiting)) >= size:
            yield first, np.concatenate(waiting)
            first, waiting = first + len(waiting), []
    if waiting:
        yield first, np.concatenate(waiting)
