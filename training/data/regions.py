"""Cuts images into regions of even color, once.

Knows nothing of networks, clusters or labels: pixels in, region maps out.

A large sky and a small sign are one region each. Whoever clusters regions instead of pixels gives both
the same weight, and the sky is no longer cut up to make clusters of equal size.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from models.errors import TesseraError
from models.io.samples import ImageError
from training.data.errors import DataError
from training.data.images import Bands, Reader, read_image
from training.progress import Progress

NO_REGION = np.iinfo(np.uint16).max  # the id of pixels that hold no data
_VERSION = 1  # of what is on disk: raise it when the same files and options would be cut otherwise
_FEW = 8  # images are cut before a process has started


class RegionOptions(BaseModel):
    """How images are read and cut. The scales are Felzenszwalb's: larger means larger regions.

    bands     which samples of a file with many are read; None: as the file says
    size      of the images when they are cut; larger ones hold more and larger regions
    contrast  clip limit of the local equalization before the cut; 0 leaves the image as it is
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: Bands = None
    size: tuple[int, int] = (240, 320)
    scales: tuple[float, ...] = Field(default=(100.0, 250.0, 500.0), min_length=1)
    sigma: float = Field(default=0.8, ge=0)
    contrast: float = Field(default=0.01, ge=0, le=1)


@dataclass(frozen=True)
class RegionCache:
    """Images of one size and their region maps, memory-mapped: only what is read takes memory.

    paths    the n image files, sorted
    images   uint8  [n, H, W, 3]
    regions  uint16 [n, S, H, W]   ids 0..count-1 within one image and one scale; NO_REGION where no data is
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


def signed(regions: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Region ids as they are kept → int32 of the same shape: -1 where no data is."""
    return np.where(regions == NO_REGION, -1, regions.astype(np.int32))


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

    read  a path and its bands → what it shows; a function of a module, as it is sent to processes

    The folder's name is a digest of the files (path, bytes, time of change) and of the options, so another
    folder of photos or another scale never meets old regions. An interrupted run leaves nothing behind.

    Raises TesseraError without images, DataError for one that cannot be read.
    """
    if not paths:
        raise TesseraError("no images to cut into regions: check the folder given with --data")
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
    """The image [H, W, 3], or a map [H, W], scaled until it covers `size`, cut to its center.  uint8"""
    height, width = image.shape[:2]
    ratio = max(size[0] / height, size[1] / width)
    tall, wide = max(size[0], round(height * ratio)), max(size[1], round(width * ratio))
    scaled = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    return np.asarray(scaled.crop((left, top, left + size[1], top + size[0])))


def _digest(paths: Sequence[Path], options: RegionOptions) -> str:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    asked = options.model_dump(exclude_none=True)
    return hashlib.sha256(json.dumps([_VERSION, facts, asked]).encode()).hexdigest()[:16]


def _cut(path: Path, options: RegionOptions, read: Reader) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    try:
        decoded = read(path, options.bands)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None
    image = cover(decoded.image, options.size)
    even = equalize(image, options.contrast) if options.contrast else image
    maps = [segment(even, scale=s, min_size_px=smallest(s), sigma=options.sigma) for s in options.scales]
    regions = np.stack(maps)
    if decoded.valid is not None:
        regions[:, cover(decoded.valid.astype(np.uint8) * 255, options.size) < 128] = NO_REGION
    return image, regions


def _count(regions: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Regions at every scale of one image, int64 [S], of uint16 [S, H, W]."""
    largest: NDArray[np.int32] = signed(regions).max(axis=(1, 2), initial=0)
    return largest.astype(np.int64) + 1


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
        counts = np.empty(shape[:2], np.int64)
        # Processes, as felzenszwalb holds Python's lock; "spawn", as a fork would copy torch's threads.
        with (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes,
            Progress(console, "cutting regions", len(paths)) as progress,
        ):
            cut = partial(_cut, options=options, read=read)
            made = processes.map(cut, paths, chunksize=4) if len(paths) > _FEW else map(cut, paths)
            for i, (image, ids) in enumerate(made):
                images[i], regions[i], counts[i] = image, ids, _count(ids)
                progress.advance()
        images.flush()
        regions.flush()
        np.save(draft / "counts.npy", counts)
        try:
            draft.rename(home)
        except OSError:  # another run finished the same regions first; its files are the same
            if not home.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
