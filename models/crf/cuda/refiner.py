"""Photos refined by the dense CRF, several at once on a device.

Knows nothing of networks or requests. The twins of models.crf.dense.refine and models.refine.refine, with their
defaults and refusals; what goes in and what comes out may stay on the device. A row of marginals has 32 bits for each
label (fractions, not floats), sums are of integers: an image's answer depends neither on the others of its batch nor on
the run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import AnyArray, Device, DeviceArray, Program, on_device
from models.crf.cuda.solver import THREADS, Arrays, Field, Job, blocks_for
from models.crf.cuda.structs import GRID, IMAGE
from models.crf.cuda.validation import check_batch, check_scores, check_status
from models.crf.params import CACHE_BYTES, PUBLISHED, CRFParams
from models.manifest import CodeSpec
from models.preprocess import Fit


class Refiner:
    """The CRF on one device. Thread-safe: one batch at a time.

    budget  bytes of device memory that it may keep. An image of 320² with 27 labels takes about 80 MB; a batch that
            does not fit is worked on in parts

    Whatever lies on the device already must be finished when it is handed in, and must not change until an answer has
    been downloaded. Answers are made in the device's own order: device.download() waits for them.
    """

    def __init__(self, device: Device, *, budget: int = 512 << 20) -> None:
        self.device = device
        self._field = Field(device, budget)
        self._stencils: OrderedDict[tuple[int, int, float], tuple[DeviceArray, ...]] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Device memory it keeps, without the answers."""
        return self._field.nbytes + sum(array.nbytes for arrays in self._stencils.values() for array in arrays)

    def refine_batch(
        self,
        probabilities: Sequence[AnyArray],
        images: Sequence[AnyArray],
        params: CRFParams = PUBLISHED,
        *,
        return_marginals: bool = False,
    ) -> tuple[list[DeviceArray], list[DeviceArray]]:
        """models.crf.dense.refine of every image: labels uint8 [H, W], and where asked for float32 [K, H, W] (else []).

        probabilities  float32 [K, H, W] each, of one K and of any sizes, on the host or on the device
        images         uint8 [H, W, 3] each, RGB, on the host or on the device

        Raises CRFError and LatticeError for the first image that cannot be refined, OutOfMemory where one is too large.
        """
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in probabilities]
            pictures = [on_device(self.device, array) for array in images]
            labels = check_batch(maps, pictures)
            sizes = [(array.shape[1], array.shape[2]) for array in maps]
            table = self._table(pictures, params.gaussian_sxy)
            answers = self._room(sizes, (maps, pictures))
            table["probabilities"] = [array.pointer for array in maps]
            table["labels"] = [array.pointer for array in answers]
            marginals = []
            if return_marginals:
                marginals = [self.device.empty((labels, *size), np.float32) for size in sizes]
                table["marginals"] = [array.pointer for array in marginals]

            def enter(program: Program, rows: DeviceArray, arrays: Arrays, which: slice) -> None:
                outputs = (arrays[name] for name in ("unary", "steps", "rows", "status"))
                program.prepared("enter", _over(table[which]), THREADS, rows, *outputs, np.int32(labels))()

            self._field.run(Job(table, params, labels, enter, partial(check_status, of=len(table)), _nothing))
            self._forget()
        return answers, marginals

    def refine_photos(
        self,
        scores: Sequence[AnyArray],
        codes: Sequence[AnyArray] | None,
        fitted: Sequence[Fit],
        spec: CodeSpec,
        params: CRFParams = PUBLISHED,
    ) -> list[DeviceArray]:
        """models.refine.refine of every photo, at the network's size: uint8 [H, W] at the photo's size.

        scores  float32 [K, h, w] each, of one K;  codes  float32 [D, h, w] each, needed where assignment is `cosine`
        """
        if spec.assignment == "cosine" and codes is None:
            raise ValueError("cosine similarities need the codes as well as the scores")
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in scores]
            labels = check_scores(maps, len(fitted))
            pictures = [on_device(self.device, fit.filled) for fit in fitted]
            images = self._table(pictures, params.gaussian_sxy)
            answers = self._room([fit.source for fit in fitted], (maps, codes, pictures))
            entering = _grids([array.shape[1:] for array in maps], [picture.shape[:2] for picture in pictures])
            entering["scores"] = [array.pointer for array in maps]
            entering["nearest"] = spec.interpolation == "nearest"
            boxes = np.array([fit.box for fit in fitted])
            entering["top"], entering["left"], entering["down"], entering["across"] = boxes.T
            kept = self._products(codes, entering) if spec.assignment == "cosine" and codes is not None else None
            leaving = _grids([picture.shape[:2] for picture in pictures], [fit.source for fit in fitted])
            leaving["labels"] = [array.pointer for array in answers]
            leaving["down"] = leaving["across"] = 1
            to_enter, to_leave = self.device.upload(entering), self.device.upload(leaving)

            def enter(program: Program, rows: DeviceArray, arrays: Arrays, which: slice) -> None:
                grids = to_enter.part(which.start, (which.stop - which.start,))
                outputs = arrays["unary"], arrays["steps"], arrays["rows"], np.int32(labels)
                program.prepared(
                    "enter_scores", _over(images[which]), THREADS, rows, grids, *outputs, np.float32(spec.temperature)
                )()

            def answered(program: Program, rows: DeviceArray, marginals: DeviceArray, which: slice) -> None:
                grids = to_leave.part(which.start, (which.stop - which.start,))
                over = _over(leaving[which], "rows", "columns")
                program.prepared("label_rows", over, THREADS, rows, grids, marginals, np.int32(labels))()

            self._field.run(Job(images, params, labels, enter, partial(check_status, of=len(images)), answered))
            self._forget()
            del kept
        return answers

    def _table(self, pictures: Sequence[DeviceArray], sxy: float) -> NDArray[Any]:
        """IMAGE [images], but for where probabilities and answers are."""
        table = np.zeros(len(pictures), IMAGE)
        for row, picture in zip(table, pictures, strict=True):
            height, width = picture.shape[:2]
            weights, used, offsets = self._stencil(height, width, sxy)
            row["picture"], row["height"], row["width"], row["taps"] = picture.pointer, height, width, offsets.size
            row["stencil"], row["stencil_row"], row["offsets"] = weights.pointer, used.pointer, offsets.pointer
        return table

    def _stencil(self, height: int, width: int, sxy: float) -> tuple[DeviceArray, ...]:
        """The Gaussian term of a size: weights [rows, W, T], the row of each image row [H], steps [T]. Kept."""
        key = height, width, sxy
        if key not in self._stencils:
            from models.crf.cpu.stencil import gaussian_stencil

            made = gaussian_stencil(height, width, sxy)
            offsets = made.steps[:, 0] * width + made.steps[:, 1]
            host = made.weights, made.row.astype(np.int32), offsets.astype(np.int32)
            self._stencils[key] = tuple(self.device.upload(array) for array in host)
        self._stencils.move_to_end(key)
        return self._stencils[key]

    def _forget(self) -> None:
        """The stencils not used for longest, beyond CACHE_BYTES; never while a launch that reads one is to come."""
        while sum(arrays[0].nbytes for arrays in self._stencils.values()) > CACHE_BYTES:
            self._stencils.popitem(last=False)

    def _room(self, sizes: Sequence[tuple[int, int]], kept: object) -> list[DeviceArray]:
        """Labels of these sizes, in one piece of memory; they keep what they are made from."""
        flat = self.device.empty((sum(height * width for height, width in sizes),), np.uint8)
        flat = replace(flat, owner=(flat.owner, kept))
        ends = np.cumsum([height * width for height, width in sizes]).tolist()
        return [flat.part(end - size[0] * size[1], size) for end, size in zip(ends, sizes, strict=True)]

    def _products(self, codes: Sequence[AnyArray], grids: NDArray[Any]) -> list[DeviceArray]:
        """Neighbor products of every code, entered into the table: lengths of interpolated codes follow from them."""
        program, made = self.device.program(1), []
        for row, code in zip(grids, (on_device(self.device, code) for code in codes), strict=True):
            dim, height, width = code.shape
            if code.dtype != np.float32 or (height, width) != (row["height"], row["width"]):
                raise ValueError(f"a code is {code.dtype} {list(code.shape)}; float32 on the scores' grid is needed")
            maps = self.device.empty((5, height, width), np.float32)
            sizes = np.int64(dim), np.int64(height), np.int64(width)
            program.prepared("products", blocks_for(height * width, THREADS, 1), THREADS, code, maps, *sizes)()
            row["products"] = maps.pointer
            made.append(maps)
        return made


def _nothing(program: Program, images: DeviceArray, rows: DeviceArray, which: slice) -> None:
    """The answers have been written already."""


def _over(table: NDArray[Any], rows: str = "height", columns: str = "width") -> tuple[int, int]:
    """A thread for each pixel of each image."""
    return blocks_for(int((table[rows] * table[columns]).max()), THREADS, len(table))


def _grids(cells: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    """GRID [images], from grids of so many cells to answers of these sizes; no more is filled in."""
    grids = np.zeros(len(cells), GRID)
    grids["height"], grids["width"] = np.array(cells).T
    grids["rows"], grids["columns"] = np.array(sizes).T
    return grids
