"""What the loop trains: one stretch of steps.

Knows nothing of methods.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Adam, Optimizer

Batch = Mapping[str, Any]


def nothing(*_: object) -> None:
    """The default hook."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training: which parameters, on which batches, towards which loss.

    steps         optimizer steps in all
    groups        parameter groups of the optimizer: {"params": [...], "lr": float, "weight_decay": float}
    batches       epoch number → that epoch's batches; a pure function of (seed, epoch), so that a resumed
                  run can skip the ones it has seen
    loss          batch → named scalars; their sum is minimized; names starting with "log/" are only logged
    before_epoch  called with the epoch number before its first batch (PiCIE re-clusters here)
    after_step    called after every optimizer step (CAUSE's moving averages)
    clip          largest norm of all gradients together; longer ones are shortened to it
    remedy        option of the recipe that helps where everything becomes one cluster, as --set takes it
    optimizer     parameter groups → what takes the steps: Adam, or AdamW
    """

    name: str
    steps: int
    groups: Sequence[dict[str, Any]]
    batches: Callable[[int], Iterable[Batch]]
    loss: Callable[[Batch], dict[str, Tensor]]
    before_epoch: Callable[[int], None] = nothing
    after_step: Callable[[], None] = nothing
    clip: float = math.inf
    remedy: str = ""
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] = Adam
