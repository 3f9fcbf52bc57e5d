"""One bundle that passed its golden image: its network, its queue, its names.

Knows nothing of how it was loaded.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from models.bundle import Bundle
from models.inference import Prediction, Predictor
from models.types import Array
from service.engines import Engine
from service.errors import Busy
from service.repository.cluster_names import Clusters
from service.repository.drift import Drift
from service.repository.verification import network_bytes
from service.scheduling.batcher import Batcher, Completed, Reason


class NetworkInput(NamedTuple):
    """One image at the network's size, uint8 [H, W, 3], and whether its code is wanted besides the scores."""

    pixels: Array
    code: bool


class NetworkBatcher(Batcher[NetworkInput, Prediction]):
    """Images that wait for one network, which uses all cores by itself; those of one size share a batch.

    max_batch_size  images;  max_batch_mpx  megapixels of a batch at the network's size; one image is never too large
    """

    def __init__(
        self,
        predict: Predictor,
        *,
        max_batch_size: int = 1,
        max_batch_mpx: float = 8.0,
        on_batch: Callable[[int, Reason], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            self._predict_batch,
            name="network",
            max_size=max_batch_size,
            max_cost=round(max_batch_mpx * 1e6),
            foresee=True,
            on_batch=on_batch,
            clock=clock,
        )
        self._predict = predict

    async def predict(
        self, pixels: Array, *, code: bool = False, key: str = "", priority: float = 0, deadline: float = math.inf
    ) -> Completed[Prediction]:
        """The network's answer for one image uint8 [H, W, 3]: scores [K, h, w] and code [D, h, w].

        The arrays are views into those of its batch: whoever keeps one for long copies it. Options and errors are those
        of `submit`, and Busy where the memory does not suffice.
        """
        height, width = pixels.shape[:2]
        return await self.submit(
            NetworkInput(pixels, code),
            group=pixels.shape,
            cost=height * width,
            key=key,
            priority=priority,
            deadline=deadline,
        )

    def _predict_batch(self, images: Sequence[NetworkInput]) -> list[Prediction | Exception]:
        alone = len(images) == 1
        pixels = images[0].pixels[None] if alone else np.stack([image.pixels for image in images])
        try:
            scores, codes = self._predict(pixels, code=any(image.code for image in images))
        except MemoryError:
            if not alone:
                raise
            raise _no_memory(pixels.shape) from None
        return [Prediction(scores[i], None if codes is None else codes[i]) for i in range(len(images))]


class Served:
    """One bundle that passed its golden image.

    engine    runs the network;  batcher  queues images for it;  clusters  names and colors as of now
    drift     how far what it is asked has moved from its training;  nbytes  about what it takes in memory
    users     requests that hold it now (`Registry.use`);  idle  set while there are none
    """

    def __init__(self, bundle: Bundle, engine: Engine, batcher: NetworkBatcher, clusters: Clusters) -> None:
        self.bundle, self.engine, self.batcher, self.clusters = bundle, engine, batcher, clusters
        self.name = bundle.manifest.name
        self.drift = Drift([cluster.fraction for cluster in bundle.manifest.clusters])
        self.nbytes = network_bytes(bundle)
        self.users = 0
        self.idle = asyncio.Event()
        self.idle.set()


def _no_memory(shape: tuple[int, ...]) -> Busy:
    return Busy(
        f"there is no memory for an image of {shape[2]}×{shape[1]} at the network's size now; come back, or send a"
        " smaller one",
        reason="memory",
    )
