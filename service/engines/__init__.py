"""What runs a bundle's network on this machine.

`open_engine` gives the one that the settings name, or the fastest here.

Knows nothing of clusters, queues or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from models.assign import Array
from models.bundle import Bundle, Encoded
from service.runtime import Runtime
from service.settings import Settings


class Engine(Protocol):
    """An Encoder that says what it is.

    name      the engine, as TESSERA_ENGINE names it
    provider  "cuda" or "cpu": what really runs it now
    shapes    (H, W) it has run at, in order
    note      a sentence: why this engine, and how far its labels agree with onnxruntime's; None: nothing to say
    """

    name: str
    provider: str
    shapes: dict[tuple[int, int], None]
    note: str | None

    def __call__(self, pixels: Array, *, code: bool = False) -> Encoded:
        """pixels uint8 [B, H, W, 3] → scores float32 [B, K, h, w] and, when asked for, code [B, D, h, w]."""
        ...

    def warm(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Runs once at each (H, W), so that the first request there does not pay for it."""
        ...

    def close(self) -> None:
        """Gives the network's memory back; it is not called again."""
        ...


def open_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The engine that `settings.engine` names. Raises BundleError where the network cannot be opened."""
    return Runtime(bundle, threads=settings.threads)
