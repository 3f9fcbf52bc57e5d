"""Frozen features of every crop and its nearest neighbors: computed once, kept on disk.

Knows nothing of losses or clusters. What is kept is named by everything that decides it (weights, sizes,
crops, the images), so a changed backbone can never meet another one's neighbors. A computation that was
killed goes on at the first crops it has not done. Several processes share the work by blocks, and whatever their
number, the blocks are the same: so are the features.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import debias
from models.debias import Asked
from models.errors import TesseraError
from models.files import write_atomically
from models.nets.backbone import Backbone
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from models.terminal.progress import Progress, say
from models.types import Array
from training import distributed
from training.config import precision
from training.config.run import Run
from training.data import crops, validity
from training.data.images import FEWEST_IMAGES, LEAST_VALID
from training.data.prefetch import prefetch
from training.features.neighbors import NEIGHBORS, ROWS, nearest_to
from training.features.row_file import Ledger, RowFile, divided

_VERSION = 2  # of what is on disk: raise it when the same key would hold other numbers
_WORTH_TELLING = 10**9  # bytes that the features take on the disk
_CHECKED = 2**14  # crops whose valid cells are counted at once


@dataclass(frozen=True)
class FeatureOptions:
    """What decides the features, apart from backbone, images and the recipe's [input].

    five_crop  five crops an image instead of the central square
    precision  of the numbers on disk; float16 halves them and changes cosines by about 1e-4
    debias     directions that say where a place is, without which neighbors are found (models/debias.py); 0: none
    """

    five_crop: bool = False
    precision: Literal["float16", "float32"] = "float16"
    batch_size: int = 16
    debias: Asked = 0


@dataclass(frozen=True)
class Features:
    """Features on disk: only what is read takes memory.

    maps       float16 or float32 [m, C, h, w], m crops
    neighbors  int64 [n, min(30, n - 1) + 1]; column 0 is the crop itself, then by falling similarity
    valid      bool [m, h, w], the cells that hold data; None: all of them
    kept       int64 [n], which of the m crops are used, those that hold enough of it; None: all of them
    """

    maps: RowFile | Array
    neighbors: Array
    valid: RowFile | None = None
    kept: Array | None = None

    def __len__(self) -> int:
        return len(self.neighbors)

    def rows(self, indices: Sequence[int] | Array) -> Array:
        """Where some of the n crops stand among the m."""
        return np.asarray(indices) if self.kept is None else self.kept[indices]

    def batch(self, indices: Sequence[int] | Array, device: torch.device) -> Tensor:
        """float32 [B, C, h, w] of some crops."""
        return torch.from_numpy(self.maps[self.rows(indices)]).to(device).float()

    def mean(self, index: int) -> Tensor:
        """float32 [C] over a crop's cells, of those that hold data."""
        cpu = torch.device("cpu")
        return _means(self.batch([index], cpu), self.valid_cells([index], cpu))[0]

    def center(self) -> Tensor:
        """float32 [C], the mean over all crops of each one's mean."""
        total = torch.zeros(self.maps.shape[1], dtype=torch.float64)
        for i in range(len(self)):
            total += self.mean(i).double()
        return (total / len(self)).float()

    def valid_cells(self, indices: Sequence[int] | Array, device: torch.device) -> Tensor | None:
        """Which of some crops' cells hold data: bool [B, h, w], some of every crop; None: all of them."""
        if self.valid is None:
            return None
        found = self.valid[self.rows(indices)]
        return None if found.all() else torch.from_numpy(found).to(device)


def open_features(encoder: Encoder, options: FeatureOptions, run: Run) -> Features:
    """The features of all the run's crops under the encoder's backbone, from disk where they are there.

    Raises TesseraError when the crops' size does not fit the backbone, the disk is too small, or too few hold data; and
    where positions do not differ along as many directions as are to be taken out.
    """
    backbone, size = encoder.backbone, run.recipe.input.train_size
    if size % backbone.multiple:
        near = max(1, round(size / backbone.multiple)) * backbone.multiple
        raise TesseraError(
            f"crops of {size} pixels do not divide into cells of {backbone.multiple}: set input.train_size to {near}"
        )
    positions = _positions(encoder, options.debias, run)
    folder = run.cache / f"features-{_key(backbone, options, run)}"
    folder.mkdir(parents=True, exist_ok=True)
    side = size // backbone.stride
    n = len(run.images) * (5 if options.five_crop else 1)
    shapes = {"maps": (n, backbone.channels, side, side), "means": (n, backbone.channels), "valid": (n, side, side)}
    types = {"maps": options.precision, "means": "float32", "valid": "bool"}
    with distributed.main_first():
        files = _files(folder, shapes, types, run)
    _fill(files, folder, encoder, options, run)
    share = np.concatenate([files["valid"][i : i + _CHECKED].mean((1, 2)) for i in range(0, n, _CHECKED)])
    kept = np.flatnonzero(share >= LEAST_VALID)
    if len(kept) < min(n, FEWEST_IMAGES):
        raise TesseraError(
            f"{len(kept)} of {n} crops hold data in {LEAST_VALID:.0%} of their cells, {FEWEST_IMAGES} are needed:"
            " choose other images, or a larger input.train_size"
        )
    opened = Features(files["maps"], _neighbors(files["means"], kept, positions, folder, run))
    return opened if (share == 1).all() else replace(opened, valid=files["valid"], kept=kept)


def _positions(encoder: Encoder, asked: Asked, run: Run) -> Array | None:
    """Directions float32 [C, r] along which the features of a crop of one color differ; None: none are taken out."""
    if asked == 0:
        return None
    side = run.recipe.input.train_size
    encoder.eval()
    with torch.inference_mode():  # of the pixels' mean color
        said = encoder.backbone(encoder.mean.new_zeros(1, 3, side, side))[0].float().cpu().numpy()
    found = debias.directions(said, asked)
    share = f"{found.shape[1]} of {found.shape[0]} directions, which say where a place is"
    say(run.console, f"neighbors are found without {share}")
    return found if found.shape[1] else None


def _neighbors(means: RowFile, kept: Array, positions: Array | None, folder: Path, run: Run) -> Array:
    """The crops most like each of the kept ones (training/features/neighbors.py), from disk where they are there.

    positions  directions that are taken out first

    Upstream leaves channel dropout on while it computes them; here nothing is random.
    Source: STEGO (arXiv:2203.08414) §4.1.
    """
    name = "neighbors" if positions is None else f"neighbors-debias{positions.shape[1]}"
    found, partial, done = (folder / f"{name}{end}" for end in (".npy", ".partial.npy", ".done.npy"))
    n = len(kept)
    with distributed.main_first():
        there = found.exists()
        if not (there or partial.exists()):
            done.unlink(missing_ok=True)
            RowFile.create(partial, (n, min(NEIGHBORS, n - 1) + 1), "int64")
    if not distributed.from_main(lambda: there):
        rows = RowFile(partial)
        compared = means[:] if n == len(means) else means[kept]
        if positions is not None:
            compared = debias.without(compared.T, positions).T
        unit = F.normalize(torch.from_numpy(compared).to(run.device), dim=1)
        with (
            divided(done, math.ceil(n / ROWS), rows) as (ledger, mine),
            Progress(run.console, "neighbors", len(mine)) as bar,
        ):
            for block in mine:
                nearest = nearest_to(unit, block * ROWS).cpu().numpy()
                rows[block * ROWS : block * ROWS + len(nearest)] = nearest
                ledger.add(block)
                bar.advance()
        with distributed.main_first():
            if distributed.is_main():
                partial.rename(found)
                done.unlink()
    table: Array = np.load(found)
    return table


def thumbnails(side: int, options: FeatureOptions, run: Run) -> RowFile:
    """The crops that the features are of, `side` pixels a side: uint8 [n, side, side, 3], in the same order."""
    asked = [_VERSION, run.images.digest, run.images.bands, side, options.five_crop, run.recipe.input.interpolation]
    path = run.cache / f"thumbnails-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}.npy"
    count = len(run.images) * (5 if options.five_crop else 1)

    def write(file: IO[bytes]) -> None:
        rows = np.lib.format.open_memmap(file.name, mode="w+", dtype=np.uint8, shape=(count, side, side, 3))
        at = 0
        for pixels, _ in _crops(side, range(len(run.images)), options, run):
            rows[at : at + len(pixels)] = pixels
            at += len(pixels)
        rows.flush()

    with distributed.main_first():
        if not path.exists():
            write_atomically(path, write)
    return RowFile(path)


def _crops(
    side: int, images: Iterable[int], options: FeatureOptions, run: Run
) -> Iterator[tuple[Array, list[Array | None]]]:
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


def _files(folder: Path, shapes: dict[str, tuple[int, ...]], types: dict[str, str], run: Run) -> dict[str, RowFile]:
    """A file for each shape, created where there is none. Raises TesseraError where the disk has no room for them."""
    paths = {name: folder / f"{name}.npy" for name in shapes}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        for mark in ("done", "done.npy"):
            (folder / mark).unlink(missing_ok=True)
        needed = sum(math.prod(shapes[name]) * np.dtype(types[name]).itemsize for name in missing)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise TesseraError(
                f"the features take {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left:"
                " choose another --out, a smaller input.train_size, five_crop = false or fewer images"
            )
        if needed > _WORTH_TELLING:
            room = f"{needed / 1e9:.1f} GB of {free / 1e9:.1f} GB that {folder} has left"
            say(run.console, f"the features of {shapes['means'][0]:,} crops take {room}")
    return {
        name: RowFile(path) if path.exists() else RowFile.create(path, shapes[name], types[name])
        for name, path in paths.items()
    }


def _fill(files: dict[str, RowFile], folder: Path, encoder: Encoder, options: FeatureOptions, run: Run) -> None:
    """Computes what is missing, block by block; a block is the whole images of about `batch_size` crops."""
    per_image = 5 if options.five_crop else 1
    each, count = math.ceil(options.batch_size / per_image), len(run.images)
    with distributed.main_first():
        _take_over(folder, math.ceil(count / each), each * per_image)
    with divided(folder / "done.npy", math.ceil(count / each), *files.values()) as (ledger, mine):
        images = [i for block in mine for i in range(block * each, min(count, (block + 1) * each))]
        loaded = _crops(run.recipe.input.train_size, images, options, run)
        encoder.eval()
        alone = distributed.world() == 1
        total = count if alone else len(images)
        with torch.inference_mode(), Progress(run.console, "features", total, done=total - len(images)) as bar:
            for block in mine:
                some = list(islice(loaded, each))
                pixels = np.concatenate([pixels for pixels, _ in some])
                x = torch.from_numpy(pixels).to(run.device).permute(0, 3, 1, 2).float()
                with precision.autocast(run.recipe.compute.precision, run.device):
                    found = encoder.backbone((x - encoder.mean) / encoder.std)
                grid = (found.shape[2], found.shape[3])
                known = validity.stacked([validity.cells(mask, grid) for _, masks in some for mask in masks], grid)
                rows = slice(block * each * per_image, block * each * per_image + len(pixels))
                files["means"][rows] = _means(found.float(), known).cpu().numpy()
                files["maps"][rows] = found.to(getattr(torch, options.precision)).cpu().numpy()
                files["valid"][rows] = np.ones((len(pixels), *grid), bool) if known is None else known.numpy()
                ledger.add(block)
                bar.advance(len(some))


def _take_over(folder: Path, blocks: int, crops_each: int) -> None:
    """What a run of 0.3 had computed of these features counts as done."""
    earlier = folder / "done"
    if earlier.exists():
        full = int(earlier.read_text()) // crops_each
        ledger = Ledger(folder / "done.npy", blocks)
        with ledger.kept():
            for block in range(min(full, blocks)):
                ledger.add(block)
        earlier.unlink()


def _means(maps: Tensor, valid: Tensor | None) -> Tensor:
    """Spatial means [B, C] of maps [B, C, h, w], over the cells that hold data; 0 where none does."""
    if valid is None:
        return maps.mean((2, 3))
    inside = valid.to(maps)[:, None]
    return (maps * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
