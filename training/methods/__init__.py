"""What a method is: a network, what it minimises, stage by stage.

Knows nothing of the loop, of checkpoints, of bundles. The folder is the registry: a further method is
one file here, holding a `METHOD` class derived from `Method`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel
from torch import Tensor, nn

from models.errors import TesseraError

if TYPE_CHECKING:
    from models.nets.encoder import Encoder
    from training.run import Run

Batch = Mapping[str, Any]


def nothing(*_: object) -> None:
    """The default hook."""


class UnknownMethod(TesseraError):
    """The recipe names a method there is no file for."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training: which parameters, on which batches, towards which loss.

    steps         optimiser steps in all
    groups        Adam parameter groups: {"params": [...], "lr": float, "weight_decay": float}
    batches       epoch number → that epoch's batches; a pure function of (seed, epoch), so that a resumed
                  run can skip the ones it has seen
    loss          batch → named scalars; their sum is minimised; names starting with "log/" are only logged
    before_epoch  called with the epoch number before its first batch (PiCIE re-clusters here)
    after_step    called after every optimiser step (CAUSE's moving averages)
    clip          largest norm of all gradients together; longer ones are shortened to it
    """

    name: str
    steps: int
    groups: Sequence[dict[str, Any]]
    batches: Callable[[int], Iterable[Batch]]
    loss: Callable[[Batch], dict[str, Tensor]]
    before_epoch: Callable[[int], None] = nothing
    after_step: Callable[[], None] = nothing
    clip: float = math.inf


class Method(nn.Module):
    """A method under training. `state_dict()` is everything a checkpoint needs of it."""

    Config: ClassVar[type[BaseModel]]
    assignment: ClassVar[Literal["cosine", "dot"]] = "cosine"
    temperature: ClassVar[float] = 2.0

    def __init__(self, config: Any, run: Run) -> None:
        """config: this method's own section of the recipe; run: recipe, images, device, folders."""
        super().__init__()

    def prepare(self) -> None:
        """Whatever is computed once, before the first stage, and kept on disk (features, neighbors)."""

    def stages(self) -> list[Stage]:
        """The stages, in order."""
        raise TypeError(f"{type(self).__name__} must define stages()")

    def encoder(self) -> Encoder:
        """Pixels to code: the network that is exported."""
        raise TypeError(f"{type(self).__name__} must define encoder()")

    def centroids(self) -> Tensor | None:
        """float32 [K, D] learned with the network, or None: the pipeline then clusters the codes."""
        return None


def names() -> list[str]:
    """Every method there is a file for."""
    return sorted(m.name for m in iter_modules(__path__))


def method(name: str) -> type[Method]:
    """The class behind a method's name. Raises UnknownMethod."""
    if name not in names():
        raise UnknownMethod(f"method {name!r}: there are {', '.join(names())}")
    found: type[Method] = import_module(f"training.methods.{name}").METHOD
    return found
