"""A batch of photos on the GPU: scores and photos go up, refined labels come down; and whether the GPU can be believed.

Nothing stays on the device between the network and the CRF, because so little travels: at 320² with 27 clusters and 70
channels on a grid of 40², scores 0.17 MB, code 0.45 MB and photo 0.31 MB go up, and a byte for each pixel of the answer
comes down. That is 0.9 MB, where the CRF itself reads and writes many times as much in each of its iterations. In
return the network's batches and the CRF's are formed apart, and scores that are kept for the same image asked again
need no device memory.

Knows nothing of threads, requests or files.
"""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models.crf.cuda import Device, Refiner, available, open_device
from models.crf.params import PUBLISHED, CRFParams
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.refine import refine
from models.types import Array
from service.engines.base import first_line
from service.settings import Settings

log = logging.getLogger("tessera")

BUDGET = 512 << 20  # bytes of device memory for working; larger batches are worked on in parts
ENGINES = ("auto", "cuda", "tensorrt")  # whoever names a CPU's engine wants no GPU
AGREEMENT = 0.999  # of the labels of a drawn photo, before the device may serve


class Image(NamedTuple):
    """scores float32 [K, h, w]; code float32 [D, h, w], needed for cosines; what the network was given."""

    scores: Array
    code: Array | None
    fitted: Fit

    @property
    def nbytes(self) -> int:
        """What travels."""
        code = 0 if self.code is None else self.code.nbytes
        return self.scores.nbytes + code + self.fitted.pixels.nbytes + math.prod(self.fitted.source)


class Worker(Protocol):
    """Where batches are refined, from one thread."""

    def __call__(self, images: Sequence[Image], spec: CodeSpec, params: CRFParams) -> Sequence[Array]:
        """models.refine.refine of images of one K: labels uint8 [H, W], each at its photo's size.

        Raises TesseraError or ValueError for an image that cannot be refined, MemoryError or OutOfMemory where a batch
        is too large. Anything else is the device's fault.
        """
        ...

    def works(self) -> bool:
        """Whether the device still answers, after a failure."""
        ...


class OnDevice:
    """A worker on a device of models.crf.cuda; of its memory `budget` bytes are kept for working."""

    def __init__(self, device: Device, budget: int = BUDGET) -> None:
        self._device = device
        self._refiner = Refiner(device, budget=budget)

    def __call__(self, images: Sequence[Image], spec: CodeSpec, params: CRFParams) -> Sequence[Array]:
        """As Worker says."""
        codes = [image.code for image in images if image.code is not None]
        labels = self._refiner.refine(
            [image.scores for image in images],
            codes if len(codes) == len(images) else None,
            [image.fitted for image in images],
            spec,
            params,
        )
        return [self._device.download(one) for one in labels]

    def works(self) -> bool:
        """As Worker says. Most of CUDA's failures end the context, and every later call fails as well."""
        sent = np.arange(256, dtype=np.uint8)
        try:
            with self._device.active():
                there = self._device.upload(sent)
            return bool((self._device.download(there) == sent).all())
        except Exception:
            log.exception("the GPU does not answer")
            return False


def open_worker(settings: Settings) -> OnDevice | str:
    """The GPU's, once it has refined a drawn photo as the CPU does; or why there is none. Raises nothing."""
    if settings.engine not in ENGINES:
        return f"TESSERA_ENGINE is {settings.engine}"
    if reason := available():
        return reason
    try:
        worker = OnDevice(open_device(), min(BUDGET, settings.gpu_bytes or BUDGET))
        agreement = proof(worker)
    except Exception as error:
        return f"the GPU does not work ({first_line(error)})"
    if agreement < AGREEMENT:
        return f"on the GPU {100 * (1 - agreement):.2f} % of the labels of a drawn photo differ from the CPU's"
    return worker


def proof(worker: Worker, side: int = 64) -> float:
    """The part of a drawn photo's pixels that get the CPU's label: 1 or nearly so where the device is sound."""
    y, x = np.mgrid[:side, :side]
    disk = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 3) ** 2
    color = np.array([[200, 60, 40], [40, 90, 180]])[disk.astype(int)] + (x * 30 // side)[:, :, None]
    random = np.random.default_rng(0).standard_normal
    scores, code = random((27, side // 8, side // 8)), random((9, side // 8, side // 8))
    image = Image(scores.astype(np.float32), code.astype(np.float32), Fit(color.astype(np.uint8), (side, side)))
    spec = CodeSpec(dim=9, stride=8, assignment="cosine", temperature=2.0)
    return float((worker([image], spec, PUBLISHED)[0] == refine(*image, spec)).mean())
