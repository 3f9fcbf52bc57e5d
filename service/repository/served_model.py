"""One bundle that passed its golden image: its network, its queue, its names.

Knows nothing of how it was loaded.
"""

from __future__ import annotations

import asyncio

from models.bundle import Bundle
from models.inference import Predictor
from service.repository.cluster_names import Clusters
from service.repository.drift import Drift
from service.repository.verification import network_bytes
from service.scheduling.batcher import Batcher


class Served:
    """One bundle that passed its golden image.

    encoder   runs the network;  batcher  queues images for it;  clusters  names and colors as of now
    drift     how far what it is asked has moved from its training;  nbytes  about what it takes in memory
    users     requests that hold it now (`Registry.use`);  idle  set while there are none
    """

    def __init__(self, bundle: Bundle, encoder: Predictor, batcher: Batcher, clusters: Clusters) -> None:
        self.bundle, self.encoder, self.batcher, self.clusters = bundle, encoder, batcher, clusters
        self.name = bundle.manifest.name
        self.drift = Drift([cluster.fraction for cluster in bundle.manifest.clusters])
        self.nbytes = network_bytes(bundle)
        self.users = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def provider(self) -> str:
        """What runs the network now: cuda, cpu; a test double has its class's name."""
        return str(getattr(self.encoder, "provider", type(self.encoder).__name__))

    @property
    def engine(self) -> str:
        """The engine, as TESSERA_ENGINE names it."""
        return str(getattr(self.encoder, "name", type(self.encoder).__name__))

    @property
    def note(self) -> str | None:
        """What the engine has to say of itself."""
        note: str | None = getattr(self.encoder, "note", None)
        return note

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) the network has run at."""
        return list(getattr(self.encoder, "shapes", ()))
