"""What a student learns from: images at one size, and what its teacher says of each, kept on disk.

Knows nothing of students' networks. What is kept is named by everything that decides it; a computation that was killed
goes on at the first images it has not done, and several processes share it.
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import TesseraError
from models.terminal.progress import Progress
from models.types import Array
from training import distributed
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.data.images import Images, evenly
from training.data.prefetch import prefetch
from training.data.preprocess import four_by_three
from training.data.regions import cover
from training.distillation.teacher import Teacher
from training.features.row_file import RowFile, divided

CELL = 4  # pixels of a cell of the label maps, as of the student's finest map
_VERSION = 1  # of what is on disk: raise it when the same key would hold other numbers
_BLOCK = 4  # images between two notes of what is done
_STRETCHES = 5  # of neighbors that are held out
_MOST_HELD_OUT = 300


@dataclass(frozen=True)
class Lessons:
    """What a student learns, memory-mapped: only what is read takes memory.

    images  uint8 [n, H, W, 3]
    soft    float16 [n, K, H/4, W/4], the teacher's probabilities; 0 where no data is
    code    float16 [n, D, h, w] on the teacher's grid; None: it is not learned
    """

    images: NDArray[np.uint8]
    soft: Tensor
    code: Tensor | None


def held_out(count: int, share: float) -> list[int]:
    """Which of so many images a student never sees: a few stretches of neighbors, evenly spread; one at least.

    Neighbors are often frames of one film: single ones would be known from those beside them.
    """
    wanted = min(_MOST_HELD_OUT, max(1, round(share * count)))
    stretches = min(_STRETCHES, wanted)
    found: list[int] = []
    for i in range(stretches):
        size = wanted // stretches + (i < wanted % stretches)
        start = (2 * i + 1) * count // (2 * stretches) - size // 2
        found += range(start, start + size)
    return found


def split(images: Images, share: float, most: int) -> tuple[Images, Images]:
    """The images that a student learns from, at most so many, drawn evenly; and those that it never sees."""
    never = held_out(len(images), share)
    rest = sorted(set(range(len(images))) - set(never))
    return images.subset([rest[i] for i in evenly(len(rest), most)]), images.subset(never)


def size_of(run: Run) -> tuple[int, int]:
    """(H, W) of the images that are learned from: whole cells of the student's coarsest map."""
    height, width = four_by_three(run.recipe.input.size, CELL << (run.recipe.student.levels - 1))
    return height, width


def work(run: Run, k: int, dim: int, stride: int) -> Work:
    """What `open_lessons` does: one pass of the teacher, the rest is disk. k, dim, stride: of the teacher."""
    (height, width), section = size_of(run), run.recipe.student
    count = len(split(run.images, section.held_out, section.images)[0])
    each = 3 * height * width + 2 * k * (height // CELL) * (width // CELL)
    if section.weight_code:
        each += 2 * dim * (height // stride) * (width // stride)
    return Work("lessons", count, "serving size", disk_bytes=count * each)


def stand_in(run: Run, k: int, dim: int, stride: int) -> Lessons:
    """As `open_lessons` answers, of gray images and at no cost: for a plan."""
    (height, width), section = size_of(run), run.recipe.student
    count = len(split(run.images, section.held_out, section.images)[0])
    images = np.broadcast_to(np.full((height, width, 3), 128, np.uint8), (count, height, width, 3))
    soft = torch.full((1, 1, 1, 1), 1 / k).expand(count, k, height // CELL, width // CELL)
    code = torch.ones(1, 1, 1, 1).expand(count, dim, height // stride, width // stride)
    return Lessons(images, soft, code if section.weight_code else None)


def open_lessons(teacher: Teacher, run: Run) -> Lessons:
    """What the teacher says of the images that its student learns from, from disk where it is there.

    Raises TesseraError where the disk is too small, and what reading an image raises.
    """
    section, (height, width) = run.recipe.student, size_of(run)
    images, _ = split(run.images, section.held_out, section.images)
    first = _lesson(teacher, images, 0, run)
    shapes = {name: (len(images), *array.shape) for name, array in first.items()}
    asked = [
        _VERSION,
        teacher.identity,
        images.digest,
        images.bands,
        section.sharpness,
        (height, width),
        sorted(shapes),
    ]
    folder = run.cache / f"lessons-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"
    paths = {name: folder / f"{name}.npy" for name in shapes}
    with distributed.main_first():
        if distributed.is_main() and not all(path.exists() for path in paths.values()):
            _create(folder, shapes, {name: str(array.dtype) for name, array in first.items()})
    files = {name: RowFile(path) for name, path in paths.items()}
    blocks = -(-len(images) // _BLOCK)
    with divided(folder / "done.npy", blocks, *files.values()) as (ledger, mine):
        rows = [i for block in mine for i in range(block * _BLOCK, min(len(images), (block + 1) * _BLOCK))]
        made = prefetch(lambda i: _lesson(teacher, images, i, run), rows, min(run.recipe.workers, 1))
        with Progress(run.console, "lessons", len(images), done=len(images) - len(rows)) as bar:
            for row, arrays in zip(rows, made, strict=True):
                for name, array in arrays.items():
                    files[name][row : row + 1] = array[None]
                if row % _BLOCK == _BLOCK - 1 or row == len(images) - 1:
                    ledger.add(row // _BLOCK)
                bar.advance()
    opened = {name: np.load(path, mmap_mode="c") for name, path in paths.items()}
    code = torch.from_numpy(opened["code"]) if "code" in opened else None
    return Lessons(opened["images"], torch.from_numpy(opened["soft"]), code)


def _lesson(teacher: Teacher, images: Images, i: int, run: Run) -> dict[str, Array]:
    """One image's row of every array."""
    section, size = run.recipe.student, size_of(run)
    grid = (size[0] // CELL, size[1] // CELL)
    decoded = images.load(i)
    image = cover(decoded.image, size)
    seen, answer = teacher.answer(image)
    soft = teacher.soft(seen, answer, grid, section.sharpness)
    if decoded.valid is not None:
        known = validity.cells(cover(decoded.valid.astype(np.uint8) * 255, size) > 127, grid)
        soft = soft if known is None else soft * known
    found: dict[str, Array] = {"images": image, "soft": soft.astype(np.float16)}
    if section.weight_code:
        assert answer.code is not None  # it was asked for
        length = np.linalg.norm(answer.code[0], axis=0, keepdims=True)
        found["code"] = (answer.code[0] / np.maximum(length, 1e-12)).astype(np.float16)
    return found


def _create(folder: Path, shapes: dict[str, tuple[int, ...]], types: dict[str, str]) -> None:
    """A file of zeros for each shape. Raises TesseraError where the disk has no room for them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.npy").unlink(missing_ok=True)
    needed = sum(math.prod(shape) * np.dtype(types[name]).itemsize for name, shape in shapes.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TesseraError(
            f"the lessons of {shapes['images'][0]} images take {needed / 1e9:.1f} GB and {folder} has"
            f" {free / 1e9:.1f} GB left: choose another --out, or a smaller student.images or input.size"
        )
    for name, shape in shapes.items():
        RowFile.create(folder / f"{name}.npy", shape, types[name])
