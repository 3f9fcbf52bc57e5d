"""What a method is: a network, what it minimizes, stage by stage.

Knows nothing of the loop, of checkpoints, of bundles.
"""

from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel
from torch import Tensor, nn

from models.assign import Assignment
from models.nets.encoder import Encoder
from training.config.run import Run
from training.config.work import Work
from training.trainer import initial
from training.trainer.stage import Batch, Stage

C = TypeVar("C", bound=BaseModel)


class Method(nn.Module, Generic[C]):
    """A method under training. `state_dict()` is everything a checkpoint needs of it.

    config  its own section of the recipe;  run  recipe, images, device, folders
    """

    Config: ClassVar[type[BaseModel]]
    assignment: ClassVar[Assignment] = "cosine"
    temperature: ClassVar[float] = 2.0

    network: Encoder

    def __init__(self, config: C, run: Run) -> None:
        super().__init__()
        self.config, self.run = config, run

    def begin(self, weights: dict[str, Tensor], source: str) -> None:
        """Takes what an earlier run has learned, by name; `source` is what to call it. Raises UsageError."""
        initial.load(self, weights, source)

    def prepare(self) -> None:
        """Whatever is computed once, before the first stage, and kept on disk (features, neighbors)."""

    def work(self) -> list[Work]:
        """What `prepare` and the stages do besides their steps: for a plan."""
        return []

    def stand_in(self) -> None:
        """Puts something of the right shape in the place of what `prepare` computes, at no cost: for a plan."""

    def sample(self, stage: Stage) -> Batch:
        """A batch of a stage, to measure a step with; nothing is written."""
        return next(iter(stage.batches(0)))

    def stages(self) -> list[Stage]:
        """The stages, in order."""
        raise TypeError(f"{type(self).__name__} must define stages()")

    def encoder(self) -> Encoder:
        """Pixels to code: the network that is exported."""
        return self.network

    def centroids(self) -> Tensor | None:
        """float32 [K, D] learned with the network, or None: the pipeline then clusters the codes."""
        return None

    def current_centroids(self) -> Tensor | None:
        """The centers in the middle of training, for previews: cheap, and changes nothing; None: there are none."""
        return None
