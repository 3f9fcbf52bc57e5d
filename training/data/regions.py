"""Cuts images into regions of even color, once.

Knows nothing of networks, clusters or labels: pixels in, region maps out.

A large sky and a small sign are one region each. Whoever clusters regions instead of pixels gives both
the same weight, and the sky is no longer cut up to make clusters of equal size.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from models.errors import TesseraError
from models.files import write_atomically
from models.io.samples import ImageError
from models.native import bindings
from models.terminal.progress import Progress
from training.data import arrays
from training.data.errors import DataError
from training.data.images import Bands, Reader, read_image
from training.data.prefetch import prefetch

NO_REGION = np.iinfo(np.uint16).max  # the id of pixels that hold no data
_VERSION = 1  # of what is on disk: raise it when the same files and options would be cut otherwise
_SECONDS_BETWEEN_FLUSHES = 2.0  # what a killed process has to do again


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
    """Region ids 0..R-1 of every pixel, numbered by the regions' first pixels.

    image    uint8  [H, W, 3]
    returns  uint16 [H, W]

    Source: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation (2004).
    """
    (found,) = segment_at(image, scales=(scale,), min_sizes_px=(min_size_px,), sigma=sigma)
    return np.asarray(found)


def segment_at(
    image: NDArray[np.uint8], *, scales: Sequence[float], min_sizes_px: Sequence[int], sigma: float = 0.8
) -> NDArray[np.uint16]:
    """`segment` at several scales, uint16 [S, H, W]: compiled, the pixels' differences are sorted once for all of them.

    Without the kernels scikit-image answers: the same regions, but where differences are equal to the last bit (many
    are, of unsmoothed pixels): their order is the pixels' here, and there the processor's.
    """
    units = np.array(scales, np.float64) / 255
    found = bindings.felzenszwalb(image, _gaussian(sigma), units, np.array(min_sizes_px, np.int64))
    if found is None:
        from skimage.segmentation import felzenszwalb  # half a second to import

        found = np.stack(
            [
                felzenszwalb(image, scale=scale, sigma=sigma, min_size=least).astype(np.uint16)
                for scale, least in zip(scales, min_sizes_px, strict=True)
            ]
        )
    return np.asarray(found, np.uint16)


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
    found = bindings.clahe(image, clip_limit)
    if found is None:
        from skimage.exposure import equalize_adapthist

        found = np.asarray(255 * equalize_adapthist(image, clip_limit=clip_limit), dtype=np.uint8)
    return found


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

    read  a path and its bands → what it shows; called in `workers` threads, 0: one for every core

    The folder's name is a digest of the files (path, bytes, time of change) and of the options, so another
    folder of photos or another scale never meets old regions. A process that is killed goes on where it was;
    of two processes one cuts and the other waits.

    Raises TesseraError without images or room on the disk, DataError for an image that cannot be read.
    """
    if not paths:
        raise TesseraError("no images to cut into regions: check the folder given with --data")
    ordered = tuple(sorted(Path(path) for path in paths))
    home = folder / f"regions-{_digest(ordered, options)}"
    # Without `done` it is whole and of 0.3, which moved it to its name when it was.
    if not (home / "counts.npy").exists() or (home / "done").exists():
        home.mkdir(parents=True, exist_ok=True)
        with arrays.locked(home):
            _fill(ordered, options, home, workers or os.cpu_count() or 1, console, read)
    return RegionCache(
        paths=ordered,
        images=np.load(home / "images.npy", mmap_mode="r"),
        regions=np.load(home / "regions.npy", mmap_mode="r"),
        counts=np.load(home / "counts.npy"),
    )


def thinned(paths: Sequence[Path], most: int | None) -> Sequence[Path]:
    """At most so many of the paths, in equal steps; None: all of them."""
    return paths[:: math.ceil(len(paths) / most)] if most else paths


def cover(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image [H, W, 3], or a map [H, W], scaled until it covers `size`, cut to its center.  uint8"""
    height, width = image.shape[:2]
    ratio = max(size[0] / height, size[1] / width)
    tall, wide = max(size[0], round(height * ratio)), max(size[1], round(width * ratio))
    scaled = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    return np.asarray(scaled.crop((left, top, left + size[1], top + size[0])))


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """A kernel of sum 1 over four deviations to each side, as scipy's; sigma 0: one weight."""
    radius = int(4 * sigma + 0.5)
    if not radius:
        return np.ones(1)
    kernel = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    return np.asarray(kernel / kernel.sum())


def _digest(paths: Sequence[Path], options: RegionOptions) -> str:
    facts = []
    for path in paths:
        try:
            seen = path.stat()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        facts.append((str(path.resolve()), seen.st_size, seen.st_mtime_ns))
    asked = options.model_dump(exclude_none=True)
    return hashlib.sha256(json.dumps([_VERSION, facts, asked]).encode()).hexdigest()[:16]


def _cut(path: Path, options: RegionOptions, read: Reader) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    try:
        decoded = read(path, options.bands)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    image = cover(decoded.image, options.size)
    even = equalize(image, options.contrast) if options.contrast else image
    least = [smallest(scale) for scale in options.scales]
    regions = segment_at(even, scales=options.scales, min_sizes_px=least, sigma=options.sigma)
    if decoded.valid is not None:
        regions[:, cover(decoded.valid.astype(np.uint8) * 255, options.size) < 128] = NO_REGION
    return image, regions


def _count(regions: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Regions at every scale of one image, int64 [S], of uint16 [S, H, W]."""
    largest: NDArray[np.int32] = signed(regions).max(axis=(1, 2), initial=0)
    return largest.astype(np.int64) + 1


def _fill(
    paths: Sequence[Path], options: RegionOptions, home: Path, workers: int, console: Console, read: Reader
) -> None:
    """Cuts what is missing, in order; `done` holds how many images are safely on disk."""
    n, (height, width) = len(paths), options.size
    done = home / "done"
    first = int(done.read_text()) if done.exists() else 0
    if first >= n:
        return
    shapes: arrays.Shapes = {
        "images": ((n, height, width, 3), np.uint8),
        "regions": ((n, len(options.scales), height, width), np.uint16),
        "counts": ((n, len(options.scales)), np.int64),
    }
    _keep(done, first)  # before the arrays: without it they count as whole
    try:
        kept = arrays.open_arrays(home, shapes, what="regions", advice="choose another --out, or fewer images")
    except TesseraError:
        shutil.rmtree(home)
        raise
    cut = partial(_cut, options=options, read=read)
    with Progress(console, "cutting regions", n, done=first) as progress:
        saved = time.monotonic()
        try:
            for i, (image, ids) in enumerate(prefetch(cut, paths[first:], workers), first):
                kept["images"][i], kept["regions"][i], kept["counts"][i] = image, ids, _count(ids)
                if i + 1 == n or time.monotonic() - saved > _SECONDS_BETWEEN_FLUSHES:
                    for array in kept.values():
                        array.flush()  # type: ignore[attr-defined]
                    _keep(done, i + 1)
                    saved = time.monotonic()
                progress.advance()
        except DataError as error:
            if isinstance(error.__context__, ImageError):  # mended or left out, it makes other regions than these
                shutil.rmtree(home)
            raise


def _keep(done: Path, count: int) -> None:
    write_atomically(done, lambda file: file.write(str(count).encode()))
