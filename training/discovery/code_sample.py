"""A bounded sample of a run's images as their codes, kept on disk: what K is chosen by, and a bundle reclustered from.

Knows nothing of clusters or methods: an encoder and images in, codes out.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.errors import TesseraError
from models.inference import Prediction, Predictor
from models.nets.encoder import Encoder
from models.preprocess import InputSpec, fit
from models.terminal.progress import Progress, say
from models.types import Array
from training.config import precision
from training.config.run import Run
from training.data import validity
from training.data.images import evenly
from training.data.preprocess import fitted
from training.features.store import digest
from training.trainer import checkpoint

MOST_IMAGES = 200
_FEWEST_IMAGES, _MOST_BYTES = 8, 2**27  # of the maps: the number of images follows from what one takes
_CELLS = 500  # drawn from each image, for clustering
_VIEWED_IMAGES, _VIEWED_CELLS = 20, 125  # that are seen mirrored and cropped as well
_CROP = 0.7  # of each side


Code = Callable[[Array], Tensor]
"""Pixels uint8 [H, W, 3] → code float32 [D, h, w] on the CPU."""


class Grid(NamedTuple):
    """Pixels per cell of the codes' grid; whether the last two numbers of a code are its place."""

    stride: int
    placed: bool


@dataclass(frozen=True)
class CodeSample:
    """Codes of some images.

    images  int64 [m], which of the run's
    maps    float16 [D, h, w] of each, under the sha256 of the pixels the encoder got
    points  float16 [n, D], cells with data drawn evenly from all of them
    views   float16 [3, v, D], cells as they are, in the mirrored, and in the cropped image
    of      int64 [v], which image each of these cells is of
    """

    images: Tensor
    maps: dict[str, Tensor]
    points: Tensor
    views: Tensor
    of: Tensor

    def save(self, path: Path, facts: dict[str, str]) -> None:
        """One safetensors file."""
        rest = {"images": self.images, "points": self.points, "views": self.views, "of": self.of}
        checkpoint.save(path, {**rest, **{f"map/{name}": found for name, found in self.maps.items()}}, facts)

    @classmethod
    def load(cls, path: Path, facts: dict[str, str]) -> "CodeSample | None":
        """What `save` wrote under the same facts; None where there is no such file, or a damaged one."""
        try:
            tensors, said = checkpoint.load(path)
            if any(said.get(name) != value for name, value in facts.items()):
                return None
            maps = {name.removeprefix("map/"): found for name, found in tensors.items() if name.startswith("map/")}
            return cls(tensors["images"], maps, *(tensors[name] for name in ("points", "views", "of")))
        except (TesseraError, KeyError):
            return None


def path_of(run: Run) -> Path:
    """Where a run keeps it."""
    return run.cache / "codes.safetensors"


def of_run(encoder: Encoder, spec: InputSpec, run: Run) -> CodeSample:
    """The codes that this encoder gives the run's images, from disk where they are there."""
    facts = {
        "images": run.images.digest,
        "weights": digest(encoder),
        "input": f"{spec.size} {spec.multiple} {spec.max_side_px}",
    }
    facts["code"] = str((encoder.normalize, encoder.position, encoder.flip_average))
    if (kept := CodeSample.load(path_of(run), facts)) is not None:
        return kept
    averaging = encoder.flip_average
    encoder.eval().to(run.device)

    @torch.inference_mode()
    def code(pixels: Array) -> Tensor:
        with precision.autocast(run.recipe.compute.precision, run.device):
            found: Tensor = encoder(torch.tensor(np.ascontiguousarray(pixels))[None].to(run.device))
        return found[0].float().cpu()

    def once(pixels: Array) -> Tensor:
        encoder.flip_average = False  # an average agrees with its mirror image whatever the network sees
        found = code(pixels)
        encoder.flip_average = averaging
        return found

    found = sample(code, once if averaging else code, spec, run, Grid(encoder.stride, encoder.position > 0))
    keep(found, run, facts)
    return found


def keep(found: CodeSample, run: Run, facts: dict[str, str]) -> None:
    """Puts it where a run keeps it; a full disk costs the sample, not the run."""
    try:
        found.save(path_of(run), facts)
    except (OSError, SafetensorError) as error:
        say(run.console, f"the sample of codes is not kept ({error}): tessera recluster will compute it anew")


class Remembered:
    """A Predictor (models.inference) that computes nothing for images whose codes are kept.

    centroids  float32 [K, D];  otherwise  answers for all other images, with a code
    """

    def __init__(self, codes: CodeSample, centroids: Array, otherwise: Predictor) -> None:
        self._maps, self._centroids, self._otherwise = codes.maps, centroids, otherwise

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """See models.inference.Predictor."""
        found = np.stack([self._code(one) for one in pixels])
        scores = np.einsum("kd,bdhw->bkhw", self._centroids, found, optimize=True)
        return Prediction(scores.astype(np.float32), found if code else None)

    def _code(self, pixels: Array) -> Array:
        kept = self._maps.get(name_of(pixels))
        if kept is not None:
            return np.asarray(kept.float())
        answered = self._otherwise(pixels[None], code=True).code
        assert answered is not None  # it was asked for
        return np.asarray(answered[0])


def name_of(pixels: Array) -> str:
    """sha256 of what an encoder gets: uint8 [H, W, 3]."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def sample(code: Code, once: Code, spec: InputSpec, run: Run, grid: Grid) -> CodeSample:
    """The codes of images drawn evenly from the run's: as many as fit, at most two hundred.

    once  the network without the average over the mirrored image; where there is none, `code`
    """
    generator = torch.Generator().manual_seed(run.recipe.seed)
    each = code(fit(run.images[0], spec).pixels).numel() * 2
    chosen = evenly(len(run.images), min(MOST_IMAGES, max(_FEWEST_IMAGES, _MOST_BYTES // each)))
    maps, points, views, of = dict[str, Tensor](), list[Tensor](), list[Tensor](), list[int]()
    with Progress(run.console, "codes", len(chosen)) as bar:
        for i, (decoded, one) in zip(chosen, fitted(run.images.subset(chosen), spec, run.recipe.workers), strict=True):
            found = code(one.pixels)
            maps[name_of(one.pixels)] = found.half()
            known = validity.rows(found, decoded.valid)
            points.append(known[torch.randperm(len(known), generator=generator)[:_CELLS]].half())
            if len(points) <= _VIEWED_IMAGES:
                whole = found if once is code else once(one.pixels)
                seen = _views(one.pixels, whole, once, spec.multiple, grid, decoded.valid, generator)
                views.append(seen.half())
                of += [i] * seen.shape[1]
            bar.advance()
    return CodeSample(torch.tensor(chosen), maps, torch.cat(points), torch.cat(views, 1), torch.tensor(of))


def _views(
    pixels: Array, whole: Tensor, code: Code, multiple: int, grid: Grid, valid: Array | None, generator: torch.Generator
) -> Tensor:
    """Codes [3, v, D] of cells with data in the middle of an image: seen in the whole, in its mirror image, alone.

    whole  float [D, h, w], the code of the whole
    """
    mirrored = code(np.ascontiguousarray(pixels[:, ::-1])).flip(-1)
    (top, height), (left, width) = (_middle(length, multiple) for length in pixels.shape[:2])
    cut = code(pixels[top : top + height, left : left + width])
    rows = slice(top // grid.stride, top // grid.stride + cut.shape[1])
    columns = slice(left // grid.stride, left // grid.stride + cut.shape[2])
    seen = torch.stack([whole[:, rows, columns], mirrored[:, rows, columns], cut])
    if grid.placed:
        seen[1:, -2:] = seen[0, -2:]  # where a cell lies is not what it shows
    cells = validity.cells(valid, whole.shape[1:])
    known = torch.ones(whole.shape[1:], dtype=torch.bool) if cells is None else torch.from_numpy(cells)
    at = known[rows, columns].flatten().nonzero()[:, 0]
    return seen.flatten(2).transpose(1, 2)[:, at[torch.randperm(len(at), generator=generator)[:_VIEWED_CELLS]]]


def _middle(length: int, multiple: int) -> tuple[int, int]:
    """Where the middle part of a side begins and how long it is, in whole multiples."""
    kept = max(multiple, int(_CROP * length) // multiple * multiple)
    return (length - kept) // 2 // multiple * multiple, kept
