"""Cuts images into regions of even color, once, and averages dense maps over them.

Knows nothing of networks, clusters or labels: pixels in, region maps out; maps in, region means out.

A large sky and a small sign are one region each. Whoever clusters regions instead of pixels gives both
the same weight, and the sky is no longer cut up to make clusters of equal size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from torch import Tensor

from models.errors import TesseraError
from training.datasets import Reader, read_image
from training.progress import Progress

_FEW = 8  # images are cut before a process has started


class RegionError(TesseraError):
    """Regions cannot be made or read as asked."""


class RegionOptions(BaseModel):
    """How images are cut. The scales are Felzenszwalb's: larger means larger regions.

    size      of the images when they are cut; larger ones hold more and larger regions
    contrast  clip limit of the local equalization before the cut; 0 leaves the image as it is
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int] = (240, 320)
    scales: tuple[float, ...] = Field(default=(100.0, 250.0, 500.0), min_length=1)
    sigma: float = Field(default=0.8, ge=0)
    contrast: float = Field(default=0.01, ge=0, le=1)


@dataclass(frozen=True)
class RegionCache:
    """Images of one size and their region maps, memory-mapped: only what is read takes memory.

    paths    the n image files, sorted
    images   uint8  [n, H, W, 3]
    regions  uint16 [n, S, H, W]   ids 0..count-1 within one image and one scale
    counts   int64  [n, S]         regions of every image at every scale
    """

    paths: tuple[Path, ...]
    images: NDArray[np.uint8]
    regions: NDArray[np.uint16]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


def segment(image: NDArray[np.uint8], *, scale: float, min_size_px: int, sigma: float = 0.8) -> NDArray[np.uint16]:
    """Region ids 0..R-1 of every pixel.

    image    uint8  [H, W, 3]
    returns  uint16 [H, W]

    Source: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation (2004).
    """
    from skimage.segmentation import felzenszwalb  # half a second to import, and only training cuts regions

    ids = felzenszwalb(image, scale=scale, sigma=sigma, min_size=min_size_px)
    return np.asarray(ids, dtype=np.uint16)


def smallest(scale: float) -> int:
    """Pixels below which a region joins a neighbor: 100, 175, 300 at the scales 100, 250, 500."""
    return round(50 + scale / 2)


def equalize(image: NDArray[np.uint8], clip_limit: float) -> NDArray[np.uint8]:
    """The image with like contrast everywhere, uint8 [H, W, 3].

    Felzenszwalb's scale is in gray levels: at dusk the road, the pavement and the cars on it are fewer
    levels apart than two clouds at noon, and would become one region.

    Source: CLAHE (Zuiderveld, Graphics Gems IV, 1994).
    """
    from skimage.exposure import equalize_adapthist

    return np.asarray(255 * equalize_adapthist(image, clip_limit=clip_limit), dtype=np.uint8)


def open_regions(
    paths: Sequence[Path],
    options: RegionOptions,
    folder: Path,
    console: Console,
    *,
    workers: int = 0,
    read: Reader = read_image,
) -> RegionCache:
    """The images at one size and their regions, from `folder` where they were made before, else made now.

    read  a path → RGB uint8 [H, W, 3]; a function of a module, as it is sent to processes

    The folder's name is a digest of the files (path, bytes, time of change) and of the options, so another
    folder of photos or another scale never meets old regions. An interrupted run leaves nothing behind.
    """
    if not paths:
        raise RegionError("no images to cut into regions: check the folder given with --data")
    ordered = tuple(sorted(Path(path) for path in paths))
    home = folder / f"regions-{_digest(ordered, options)}"
    if not (home / "counts.npy").exists():
        _make(ordered, options, home, workers or os.cpu_count() or 1, console, read)
    return RegionCache(
        paths=ordered,
        images=np.load(home / "images.npy", mmap_mode="r"),
        regions=np.load(home / "regions.npy", mmap_mode="r"),
        counts=np.load(home / "counts.npy"),
    )


def cover(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image scaled until it covers `size`, cut to its center.  uint8 [H, W, 3]"""
    height, width = image.shape[:2]
    ratio = max(size[0] / height, size[1] / width)
    tall, wide = max(size[0], round(height * ratio)), max(size[1], round(width * ratio))
    scaled = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    return np.asarray(scaled.crop((left, top, left + size[1], top + size[0])))


def pool(maps: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of every map over every region, and how many cells each region has.

    maps     float [B, D, h, w]
    ids      int64 [B, h, w]      region ids 0..count-1; negative cells belong to no region
    returns  float [B, count, D], float [B, count]
    Regions without a cell have mean 0.
    """
    batch, depth = maps.shape[:2]
    flat = maps.flatten(2).transpose(1, 2).reshape(-1, depth)
    offset = torch.arange(batch, device=ids.device)[:, None] * count
    index = (ids.flatten(1) + offset).flatten()
    inside = (ids.flatten() >= 0).to(maps.dtype)
    index = index.clamp(min=0)
    sums = maps.new_zeros(batch * count, depth).index_add(0, index, flat * inside[:, None])
    cells = maps.new_zeros(batch * count).index_add(0, index, inside)
    means = sums / cells.clamp(min=1)[:, None]
    return means.reshape(batch, count, depth), cells.reshape(batch, count)


def paint(values: NDArray[np.float32], ids: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Region values back on the pixels: values [R, K], ids [H, W] -> [K, H, W]."""
    return np.moveaxis(values[ids], -1, 0)


def _digest(paths: Sequence[Path], options: RegionOptions) -> str:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([facts, options.model_dump()]).encode()).hexdigest()[:16]


def _cut(path: Path, options: RegionOptions, read: Reader) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    image = cover(read(path), options.size)
    even = equalize(image, options.contrast) if options.contrast else image
    maps = [segment(even, scale=s, min_size_px=smallest(s), sigma=options.sigma) for s in options.scales]
    return image, np.stack(maps)


def _make(
    paths: Sequence[Path], options: RegionOptions, home: Path, workers: int, console: Console, read: Reader
) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=home.parent))
    height, width = options.size
    shape = (len(paths), len(options.scales), height, width)
    try:
        pixels = (len(paths), height, width, 3)
        images = np.lib.format.open_memmap(draft / "images.npy", "w+", np.uint8, pixels)
        regions = np.lib.format.open_memmap(draft / "regions.npy", "w+", np.uint16, shape)
        # Processes, as felzenszwalb holds Python's lock; "spawn", as a fork would copy torch's threads.
        with (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes,
            Progress(console, "cutting regions", len(paths)) as progress,
        ):
            cut = partial(_cut, options=options, read=read)
            made = processes.map(cut, paths, chunksize=4) if len(paths) > _FEW else map(cut, paths)
            for i, (image, ids) in enumerate(made):
                images[i], regions[i] = image, ids
                progress.advance()
        images.flush()
        regions.flush()
        np.save(draft / "counts.npy", regions.reshape(*shape[:2], -1).max(axis=2).astype(np.int64) + 1)
        try:
            draft.rename(home)
        except OSError:  # another run finished the same regions first; its files are the same
            if not home.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True)
class RegionCodes:
    """One row per region of every image at one or more scales.

    codes   float32 [R, D]    mean code
    center  float32 [R, 2]    (y, x) of the region's mean pixel, 0..1
    area    float32 [R]       share of its image
    image, scale, region  int64 [R]   where the row comes from
    """

    codes: Tensor
    center: Tensor
    area: Tensor
    image: Tensor
    scale: Tensor
    region: Tensor

    def at(self, scale: int) -> RegionCodes:
        """The rows of one scale."""
        keep = self.scale == scale
        return RegionCodes(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def region_codes(code: Callable[[Tensor], Tensor], cache: RegionCache, *, batch_size: int = 16) -> RegionCodes:
    """Mean code, place and area of every region.

    code   pixels uint8 [B, H, W, 3] -> code float [B, D, h, w]
    """
    rows: list[RegionCodes] = []
    for start in range(0, len(cache), batch_size):
        pixels = torch.from_numpy(np.array(cache.images[start : start + batch_size]))
        with torch.inference_mode():
            maps = code(pixels).float().cpu()
        grid = tuple(maps.shape[-2:])
        down = torch.linspace(0, 1, grid[0])[:, None].expand(grid)
        along = torch.linspace(0, 1, grid[1]).expand(grid)
        place = torch.stack([down, along]).expand(len(maps), -1, -1, -1)
        for s in range(cache.regions.shape[1]):
            ids = coarse(cache.regions[start : start + batch_size, s], grid)
            means, cells = pool(torch.cat([maps, place], dim=1), ids, int(cache.counts[:, s].max()))
            image, region = (cells > 0).nonzero(as_tuple=True)
            rows.append(
                RegionCodes(
                    codes=means[image, region, :-2],
                    center=means[image, region, -2:],
                    area=cells[image, region] / (grid[0] * grid[1]),
                    image=image + start,
                    scale=torch.full_like(image, s),
                    region=region,
                )
            )
    fields = RegionCodes.__dataclass_fields__
    return RegionCodes(*(torch.cat([getattr(row, name) for row in rows]) for name in fields))


def coarse(ids: NDArray[np.uint16], grid: tuple[int, ...]) -> Tensor:
    """The id at the middle of every cell of a coarser grid.  uint16 [B, H, W] -> int64 [B, h, w]"""
    rows = ((np.arange(grid[0]) + 0.5) * ids.shape[1] / grid[0]).astype(int)
    columns = ((np.arange(grid[1]) + 0.5) * ids.shape[2] / grid[1]).astype(int)
    return torch.from_numpy(ids[:, rows][:, :, columns].astype(np.int64))
