"""Photos refined by the dense CRF, several at once on a device.

Knows nothing of networks or requests. The twin of models.refine.refine; scores and codes may lie on the device, and
labels stay there. A row of marginals has 32 bits for each label (fractions, not floats), sums are of integers: an
image's answer depends neither on the others of its batch nor on the run.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import AnyArray, Device, DeviceArray, on_device
from models.crf.cuda.solver import THREADS, Field, Job, blocks_for
from models.crf.cuda.structs import GRID, IMAGE
from models.crf.cuda.validation import check_scores
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

    def refine(
        self,
        scores: Sequence[AnyArray],
        codes: Sequence[AnyArray] | None,
        fitted: Sequence[Fit],
        spec: CodeSpec,
        params: CRFParams = PUBLISHED,
    ) -> list[DeviceArray]:
        """models.refine.refine of every photo, at the network's size: uint8 [H, W] at the photo's size.

        scores  float32 [K, h, w] each, of one K;  codes  float32 [D, h, w] each, needed where assignment is `cosine`

        Both may lie on the device. Raises ValueError for what does not fit together, CRFError for the first photo
        that cannot be refined, OutOfMemory where one is too large.
        """
        if spec.assignment == "cosine" and codes is None:
            raise ValueError("cosine similarities need the codes as well as the scores")
        with self._lock, self.device.active():
            maps = [on_device(self.device, array) for array in scores]
            labels = check_scores(maps, len(fitted))
            pictures = [on_device(self.device, fit.filled) for fit in fitted]
            sizes, sources = [array.shape[:2] for array in pictures], [fit.source for fit in fitted]
            entering, leaving = _grids([array.shape[1:] for array in maps], sizes), _grids(sizes, sources)
            entering["scores"] = [array.pointer for array in maps]
            entering["top"], entering["left"], entering["down"], entering["across"] = np.transpose(
                [fit.box for fit in fitted]
            )
            entering["nearest"] = spec.interpolation == "nearest"
            products = self._products(codes, entering) if spec.assignment == "cosine" and codes is not None else None
            answers = self._room(sources, (maps, pictures, products))
            leaving["labels"], leaving["down"], leaving["across"] = [array.pointer for array in answers], 1, 1
            table = self._table(pictures, params.gaussian_sxy)
            self._field.run(Job(table, entering, leaving, labels, spec.temperature, params))
            # The stencils not used for longest go, beyond CACHE_BYTES: no launch that reads one is to come any more.
            while sum(arrays[0].nbytes for arrays in self._stencils.values()) > CACHE_BYTES:
                self._stencils.popitem(last=False)
        return answers

    def _room(self, sizes: Sequence[tuple[int, int]], kept: object) -> list[DeviceArray]:
        """Labels of these sizes, in one piece of memory; they keep what they are made from."""
        ends = np.cumsum([height * width for height, width in sizes]).tolist()
        flat = self.device.empty((ends[-1],), np.uint8)
        flat = replace(flat, owner=(flat.owner, kept))
        return [flat.part(end - size[0] * size[1], size) for end, size in zip(ends, sizes, strict=True)]

    def _table(self, pictures: Sequence[DeviceArray], sxy: float) -> NDArray[Any]:
        """IMAGE [images]."""
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


def _grids(cells: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    """GRID [images], from grids of so many cells to answers of these sizes; no more is filled in."""
    grids = np.zeros(len(cells), GRID)
    grids["height"], grids["width"] = np.array(cells).T
    grids["rows"], grids["columns"] = np.array(sizes).T
    return grids
