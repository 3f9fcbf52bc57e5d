"""Photos refined by the dense CRF, several at once on a device.

Knows nothing of networks or requests. The twins of models.crf.dense.refine and models.refine.refine, with their
defaults and refusals; what goes in and what comes out may stay on the device. A row of marginals has 32 bits for each
label (fractions, not floats), sums are of integers: an image's answer depends neither on the others of its batch nor on
the run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import AnyArray, Device, DeviceArray, Program, on_device
from models.crf.cuda.solver import THREADS, Arrays, Field, Job, blocks_for
from models.crf.cuda.structs import GRID, IMAGE
from models.crf.cuda.validation import check_batch, check_scores
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
            table = self._table(pictures, params.gaussian_sxy)
            table["probabilities"] = [array.pointer for array in maps]
            marginals = [self.device.empty(array.shape, np.float32) for array in maps if return_marginals]
            if return_marginals:
                table["marginals"] = [array.pointer for array in marginals]

            def enter(program: Program, rows: DeviceArray, arrays: Arrays, which: slice) -> None:
                outputs = (arrays[name] for name in ("unary", "steps", "rows", "status"))
                program.prepared("enter", _over(table[which]), THREADS, rows, *outputs, np.int32(labels))()

            sizes = [(array.shape[0], array.shape[1]) for array in pictures]
            return self._labels(table, params, labels, enter, sizes, (maps, pictures)), marginals

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
            table = self._table(pictures, params.gaussian_sxy)
            grids = _grids([array.shape[1:] for array in maps], [array.shape[:2] for array in pictures])
            grids["scores"] = [array.pointer for array in maps]
            grids["top"], grids["left"], grids["down"], grids["across"] = np.array([fit.box for fit in fitted]).T
            grids["nearest"] = spec.interpolation == "nearest"
            products = self._products(codes, grids) if spec.assignment == "cosine" and codes is not None else None
            there = self.device.upload(grids)

            def enter(program: Program, rows: DeviceArray, arrays: Arrays, which: slice) -> None:
                own = there.part(which.start, (which.stop - which.start,))
                outputs = arrays["unary"], arrays["steps"], arrays["rows"]
                numbers = np.int32(labels), np.float32(spec.temperature)
                program.prepared("enter_scores", _over(table[which]), THREADS, rows, own, *outputs, *numbers)()

            sizes = [fit.source for fit in fitted]
            return self._labels(table, params, labels, enter, sizes, (maps, pictures, products))

    def _labels(
        self,
        images: NDArray[Any],
        params: CRFParams,
        labels: int,
        enter: Callable[[Program, DeviceArray, Arrays, slice], None],
        sizes: Sequence[tuple[int, int]],
        kept: object,
    ) -> list[DeviceArray]:
        """Of every image, uint8 at these sizes, in one piece of memory; they keep what they are made from."""
        ends = np.cumsum([height * width for height, width in sizes]).tolist()
        flat = self.device.empty((ends[-1],), np.uint8)
        flat = replace(flat, owner=(flat.owner, kept))
        answers = [flat.part(end - size[0] * size[1], size) for end, size in zip(ends, sizes, strict=True)]
        grids = _grids(images[["height", "width"]].tolist(), sizes)
        grids["labels"], grids["down"], grids["across"] = [array.pointer for array in answers], 1, 1
        there = self.device.upload(grids)

        def answered(program: Program, rows: DeviceArray, marginals: DeviceArray, which: slice) -> None:
            own = there.part(which.start, (which.stop - which.start,))
            over = _over(grids[which], "rows", "columns")
            program.prepared("label_rows", over, THREADS, rows, own, marginals, np.int32(labels))()

        self._field.run(Job(images, params, labels, enter, answered))
        # The stencils not used for longest go, beyond CACHE_BYTES: no launch that reads one is to come any more.
        while sum(arrays[0].nbytes for arrays in self._stencils.values()) > CACHE_BYTES:
            self._stencils.popitem(last=False)
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


def _over(table: NDArray[Any], rows: str = "height", columns: str = "width") -> tuple[int, int]:
    """A thread for each pixel of each image."""
    return blocks_for(int((table[rows] * table[columns]).max()), THREADS, len(table))


def _grids(cells: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    """GRID [images], from grids of so many cells to answers of these sizes; no more is filled in."""
    grids = np.zeros(len(cells), GRID)
    grids["height"], grids["width"] = np.array(cells).T
    grids["rows"], grids["columns"] = np.array(sizes).T
    return grids
