"""What a method is: a network, what it minimises, stage by stage.

Knows nothing of the loop, of checkpoints, of bundles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel
from torch import Tensor, nn

from training.trainer.stage import Stage

if TYPE_CHECKING:
    from models.nets.encoder import Encoder
    from training.config.run import Run


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
