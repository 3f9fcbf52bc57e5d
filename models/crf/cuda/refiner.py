"""Labels, and labels refined by the dense CRF, of several photos at once on a device.

Knows nothing of networks or requests. The twins of models.crf.dense.refine, models.refine.refine and
models.assign.labels, with their parameters, defaults and refusals; what goes in and what comes out may stay on the
device. Rows of marginals have 16 bits for each label (fractions, not floats), sums are of integers: an image's answer
depends neither on the others of its batch nor on the run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.assign import Assignment, Interpolation
from models.crf.cuda.device import AnyArray, Device, DeviceArray, Program, on_device
from models.crf.cuda.solver import THREADS, Arrays, Field, Job, Parameters, blocks_for
from models.crf.cuda.structs import GRID, IMAGE
from models.crf.cuda.validation import check_batch, check_scores, check_status, checked
from models.crf.params import CACHE_BYTES
from models.preprocess import Fit
from models.types import WHOLE, Box

Window = tuple[int, int, int, int]  # top, left, height, width


class Refiner:
    """The CRF and the labels on one device. Thread-safe: one batch at a time.

    budget  bytes of device memory that it may keep. An image of 320² with 27 labels takes about 50 MB; a batch that
            does not fit is worked on in parts
    wide    rows have 32 bits for each label: twice the memory and the time, for answers closer to float32's

    Whatever lies on the device already must be finished when it is handed in, and must not change until an answer has
    been downloaded. Answers are made in the device's own order: device.download() waits for them.
    """

    def __init__(self, device: Device, *, budget: int = 512 << 20, wide: bool = False) -> None:
        self.device = device
        self._wide = wide
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
        *,
        iterations: int = 10,
        gaussian_sxy: float = 1.0,
        gaussian_compat: float = 3.0,
        bilateral_sxy: float = 67.0,
        bilateral_srgb: float = 3.0,
        bilateral_compat: float = 4.0,
        return_marginals: bool = False,
    ) -> tuple[list[DeviceArray], list[DeviceArray]]:
        """models.crf.dense.refine of every image: labels uint8 [H, W], and where asked for float32 [K, H, W] (else []).

        probabilities  float32 [K, H, W] each, of one K and of any sizes, on the host or on the device
        images         uint8 [H, W, 3] each, RGB, on the host or on the device

        Raises CRFError and LatticeError for the first image that cannot be refined, OutOfMemory where one is too large.
        """
        parameters = checked(
            Parameters(iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
        )
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in probabilities]
            pictures = [on_device(self.device, array) for array in images]
            labels = check_batch(maps, pictures)
            sizes = [(array.shape[1], array.shape[2]) for array in maps]
            table = self._table(pictures, [(0, 0, *size) for size in sizes], parameters)
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

            check = partial(check_status, of=len(table))
            self._field.run(Job(table, parameters, labels, self._wide, enter, check, _nothing))
            self._forget()
        return answers, marginals

    def refined_batch(
        self,
        scores: Sequence[AnyArray],
        codes: Sequence[AnyArray] | None,
        fitted: Sequence[Fit],
        *,
        temperature: float,
        assignment: Assignment = "cosine",
        interpolation: Interpolation = "bilinear",
        pixels: Sequence[AnyArray] | None = None,
        table: NDArray[np.uint8] | None = None,
        iterations: int = 10,
        gaussian_compat: float = 3.0,
        bilateral_sxy: float = 67.0,
        bilateral_srgb: float = 3.0,
        bilateral_compat: float = 4.0,
    ) -> list[DeviceArray]:
        """models.refine.refine of every photo: uint8 [H, W] at the photo's size.

        scores  float32 [K, h, w] each, of one K;  codes  float32 [D, h, w] each, needed where assignment is `cosine`
        pixels  fitted[i].pixels as they lie on the device; without, they are copied there
        table   uint8 [K]: what stands for each cluster (models.hierarchy.level)
        """
        parameters = checked(
            Parameters(iterations, 1.0, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
        )
        if assignment == "cosine" and codes is None:
            raise ValueError("cosine similarities need the codes as well as the scores")
        windows = [_window(fit) for fit in fitted]
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in scores]
            labels = check_scores(maps, len(fitted))
            if pixels is None:
                pictures = [
                    on_device(self.device, fit.pixels[top : top + height, left : left + width])
                    for fit, (top, left, height, width) in zip(fitted, windows, strict=True)
                ]
                images = self._table(pictures, [(0, 0, *window[2:]) for window in windows], parameters)
            else:
                pictures = [on_device(self.device, array) for array in pixels]
                images = self._table(pictures, windows, parameters)
            answers = self._room([fit.source for fit in fitted], (maps, codes, pictures))
            entering = _grids(maps, [window[2:] for window in windows], [fit.box for fit in fitted], interpolation)
            kept = self._products(codes, entering) if assignment == "cosine" and codes is not None else None
            leaving = np.zeros(len(fitted), GRID)
            leaving["labels"] = [array.pointer for array in answers]
            leaving["height"], leaving["width"] = images["height"], images["width"]
            leaving["rows"], leaving["columns"] = np.array([fit.source for fit in fitted]).T
            leaving["down"] = leaving["across"] = 1
            to_enter, to_leave = self.device.upload(entering), self.device.upload(leaving)
            replaced = self._replaced(table)

            def enter(program: Program, rows: DeviceArray, arrays: Arrays, which: slice) -> None:
                grids = to_enter.part(which.start, (which.stop - which.start,))
                outputs = arrays["unary"], arrays["steps"], arrays["rows"], np.int32(labels), np.float32(temperature)
                program.prepared("enter_scores", _over(images[which]), THREADS, rows, grids, *outputs)()

            def answered(program: Program, rows: DeviceArray, marginals: DeviceArray, which: slice) -> None:
                grids = to_leave.part(which.start, (which.stop - which.start,))
                grid = blocks_for(
                    int((leaving["rows"] * leaving["columns"])[which].max()), THREADS, len(leaving[which])
                )
                program.prepared("label_rows", grid, THREADS, rows, grids, replaced, marginals, np.int32(labels))()

            check = partial(check_status, of=len(images))
            self._field.run(Job(images, parameters, labels, self._wide, enter, check, answered))
            self._forget()
            del kept
        return answers

    def label_batch(
        self,
        scores: Sequence[AnyArray],
        sizes: Sequence[tuple[int, int]],
        boxes: Sequence[Box] | None = None,
        *,
        table: NDArray[np.uint8] | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> list[DeviceArray]:
        """models.assign.labels of every image, to the last pixel: uint8 [H, W] each.

        scores  float32 [K, h, w] each, of one K, on the host or on the device
        table   uint8 [K]: what stands for each cluster (models.hierarchy.level)
        """
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in scores]
            labels = check_scores(maps, len(sizes))
            answers = self._room(sizes, maps)
            grids = _grids(maps, sizes, boxes or [WHOLE] * len(sizes), interpolation)
            grids["labels"] = [array.pointer for array in answers]
            largest = int((grids["rows"] * grids["columns"]).max())
            self.device.program(1, False).prepared(
                "label_grid",
                blocks_for(largest, THREADS, len(grids)),
                THREADS,
                self.device.upload(grids),
                self._replaced(table),
                np.int32(labels),
            )()
        return answers

    def warm(self, sizes: Iterable[tuple[int, int]], labels: int) -> None:
        """Compiles what that many labels need, and makes what is kept for images of these sizes."""
        for height, width in sizes:
            maps = np.full((labels, height, width), 1 / labels, np.float32)
            answer, _ = self.refine_batch([maps], [np.zeros((height, width, 3), np.uint8)])
            self.device.download(answer[0])

    def _table(
        self, pictures: Sequence[DeviceArray], windows: Sequence[Window], parameters: Parameters
    ) -> NDArray[Any]:
        """IMAGE [images], but for where the answers go."""
        table = np.zeros(len(pictures), IMAGE)
        for row, picture, (top, left, height, width) in zip(table, pictures, windows, strict=True):
            weights, used, offsets = self._stencil(height, width, parameters.gaussian_sxy)
            row["pitch"] = 3 * picture.shape[1]
            row["picture"] = picture.pointer + int(top * row["pitch"]) + 3 * left
            row["height"], row["width"], row["taps"] = height, width, offsets.size
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
        program, made = self.device.program(1, False), []
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

    def _replaced(self, table: NDArray[np.uint8] | None) -> DeviceArray | None:
        return None if table is None else self.device.upload(np.asarray(table, np.uint8))


def _nothing(program: Program, images: DeviceArray, rows: DeviceArray, which: slice) -> None:
    """The answers have been written already."""


def _over(table: NDArray[Any]) -> tuple[int, int]:
    """A thread for each pixel of each image."""
    return blocks_for(int((table["height"] * table["width"]).max()), THREADS, len(table))


def _window(fit: Fit) -> Window:
    """The part of fit.pixels that the source fills, in pixels."""
    height, width = fit.pixels.shape[:2]
    top, left, down, across = fit.box
    return round(top * height), round(left * width), round(down * height), round(across * width)


def _grids(
    maps: Sequence[DeviceArray], sizes: Sequence[tuple[int, ...]], boxes: Sequence[Box], interpolation: Interpolation
) -> NDArray[Any]:
    grids = np.zeros(len(maps), GRID)
    grids["scores"] = [array.pointer for array in maps]
    grids["height"], grids["width"] = np.array([array.shape[1:] for array in maps]).T
    grids["rows"], grids["columns"] = np.array(sizes).T
    grids["top"], grids["left"], grids["down"], grids["across"] = np.array(boxes, np.float64).T
    grids["nearest"] = interpolation == "nearest"
    return grids
