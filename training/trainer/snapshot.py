"""All that a training needs to go on with the same bits: where it stands, its optimizer, every random generator.

Knows nothing of steps or logs.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.errors import TesseraError
from training.trainer import checkpoint
from training.trainer.stage import Stage


@dataclass(frozen=True)
class Position:
    """How far a run has come: `step` steps of stage `stage` and `batch` batches of its epoch `epoch`.

    seconds  spent training, over all resumptions
    """

    stage: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    position: Position
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path, identity: str, stages: Sequence[Stage]) -> "Saved | None":
        """Of a file, None without one. Raises TesseraError where it is of other stages, or of another identity."""
        if not path.exists():
            return None
        tensors, facts = checkpoint.load(path)
        if facts.get("identity", "") != identity:
            raise TesseraError(f"{path} is of other images or options: delete it, or give another --out")
        position = Position(**facts["position"])
        at = position.stage - (position.step == 0)  # a finished stage is the one before
        if at >= len(stages) or stages[at].name != facts["stage"]:
            raise TesseraError(
                f"{path} stands in stage {facts['stage']!r}; this recipe has"
                f" {', '.join(s.name for s in stages)}: start a new run"
            )
        return cls(position, tensors, facts)

    def restore(self, optimizer: Optimizer) -> None:
        """The optimizer's moments and rates, and every random generator."""
        # Not by load_state_dict, which would put copies in the place of the stage's own groups.
        for group, rate in zip(optimizer.param_groups, self.facts["rates"], strict=True):
            group["lr"] = rate
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for name, tensor in self.tensors.items():
            if name.startswith("optimizer/"):
                _, number, key = name.split("/")
                parameter = parameters[int(number)]
                # In the parameter's own layout of memory, as the optimizer had made it.
                optimizer.state[parameter][key] = tensor if key == "step" else torch.empty_like(parameter).copy_(tensor)
        version, numbers, gauss = self.facts["python_rng"]
        random.setstate((version, tuple(numbers), gauss))
        kind, position, has_gauss, cached = self.facts["numpy_rng"]
        np.random.set_state((kind, self.tensors["rng/numpy"].numpy(), position, has_gauss, cached))
        torch.set_rng_state(self.tensors["rng/torch"])
        if torch.cuda.is_available() and "rng/cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["rng/cuda"])


def snapshot(optimizer: Optimizer, position: Position) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of everything but the module: position, optimizer, random generators."""
    kind, numbers, at, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"rng/torch": torch.get_rng_state(), "rng/numpy": torch.from_numpy(np.asarray(numbers))}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    if position.step:  # the next stage begins with an optimizer of its own
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{parameter}/{key}"] = value
    facts = {
        "position": asdict(position),
        "rates": [group["lr"] for group in optimizer.param_groups],
        "python_rng": random.getstate(),
        "numpy_rng": [kind, int(at), int(has_gauss), float(cached)],
    }
    return tensors, facts


def load_module(module: nn.Module, saved: Saved, path: Path) -> None:
    """Gives a module its weights. Raises TesseraError where they are of another."""
    mark = "module/"
    weights = {n.removeprefix(mark): t for n, t in saved.tensors.items() if n.startswith(mark)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise TesseraError(f"{path} does not fit this network: {error}") from None
