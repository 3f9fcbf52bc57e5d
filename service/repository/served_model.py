"""One bundle that passed its golden image: its network, its queue, its names.

Knows nothing of how it was loaded.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from models.bundle import Bundle
from models.inference import Prediction, Predictor, finite
from models.types import Array
from service.engines import Engine
from service.errors import Busy, NetworkFailed, NetworkNotFinite
from service.repository.classes import Classes
from service.repository.cluster_names import Clusters
from service.repository.database import READ_S
from service.repository.drift import Drift, Unfamiliar
from service.repository.statistics import Statistics
from service.repository.verification import network_bytes
from service.repository.watched_engine import WatchedEngine
from service.scheduling.background import as_exception
from service.scheduling.batcher import Batcher, Completed, Reason

log = logging.getLogger("tessera")


class NetworkInput(NamedTuple):
    """One image at the network's size, uint8 [H, W, 3], and whether its code is wanted besides the scores."""

    pixels: Array
    code: bool


class NetworkBatcher(Batcher[NetworkInput, Prediction]):
    """Images that wait for one network, which uses all cores by itself; those of one size share a batch.

    model           whose network it is, for people
    max_batch_size  images;  max_batch_mpx  megapixels of a batch at the network's size; one image is never too large
    on_not_finite   told of every image to which the network answered NaN or infinity, in its thread
    every           the background's turn is one of so many while others wait

    died      what ended a run that no error of ours ended; None: nothing has
    failures  batches since the last that had an answer
    """

    def __init__(
        self,
        predict: Predictor,
        *,
        model: str = "this model",
        max_batch_size: int = 1,
        max_batch_mpx: float = 8.0,
        on_batch: Callable[[int, Reason], object] | None = None,
        on_not_finite: Callable[[], object] = lambda: None,
        every: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            self._predict_batch,
            name="network",
            max_size=max_batch_size,
            max_cost=round(max_batch_mpx * 1e6),
            foresee=True,
            on_batch=on_batch,
            every=every,
            clock=clock,
        )
        self._predict, self._model, self._on_not_finite = predict, model, on_not_finite
        self.died: str | None = None
        self.failures = 0

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
        except Exception:
            self.failures += 1
            raise
        except BaseException as error:  # a library that wants to end the process
            self.died = str(as_exception(error))
            raise NetworkFailed(f"{self._model}: its network died ({self.died}); ask again in a moment") from error
        predictions = [Prediction(scores[i], None if codes is None else codes[i]) for i in range(len(images))]
        answers: list[Prediction | Exception] = [one if finite(one) else self._not_finite() for one in predictions]
        self.failures = 0 if any(isinstance(answer, Prediction) for answer in answers) else self.failures + 1
        return answers

    def _not_finite(self) -> NetworkNotFinite:
        self._on_not_finite()
        log.error("%s: its network answered NaN or infinity; the image has no labels", self._model)
        return NetworkNotFinite(
            f"{self._model}: its network answers NaN or infinity for this image, so it has no labels; send another, and"
            " where others fail as well, load another bundle or set TESSERA_ENGINE=onnxruntime"
        )


class Served:
    """One bundle that passed its golden image.

    watched   runs the network;  batcher  queues images for it;  clusters  names and colors as of now
    classes   what people taught, as of now
    label     its name in the metrics; a canary's is its ref, as it may have the default's name
    trouble   why it cannot answer now: its engine is lost, and a fresh one not there yet; None: it can
    drift     how far what it is asked has moved from its training;  unfamiliar  how much of it is unlike that
    statistics  what it has done
    nbytes    about what it takes in memory
    users     requests that hold it now (`Registry.use`);  idle  set while there are none
    """

    def __init__(
        self, bundle: Bundle, watched: WatchedEngine, batcher: NetworkBatcher, clusters: Clusters, classes: Classes
    ) -> None:
        self.bundle, self.watched, self.batcher = bundle, watched, batcher
        self.clusters, self.classes = clusters, classes
        self.name = self.label = bundle.manifest.name
        self.trouble: str | None = None
        self.drift = Drift([cluster.fraction for cluster in bundle.manifest.clusters])
        self.unfamiliar = Unfamiliar()
        self.statistics = Statistics()
        self.nbytes = network_bytes(bundle)
        self.users = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def refresh(self, limit_s: float = READ_S) -> None:
        """Show what people say of its clusters now, and what they taught, whichever server it came to."""
        await self.clusters.refresh(limit_s)
        await self.classes.refresh(limit_s)

    @property
    def engine(self) -> Engine:
        """What runs the network now."""
        return self.watched.engine


def _no_memory(shape: tuple[int, ...]) -> Busy:
    return Busy(
        f"there is no memory for an image of {shape[2]}×{shape[1]} at the network's size now; come back, or send a"
        " smaller one",
        reason="memory",
    )
