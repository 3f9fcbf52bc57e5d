"""Overrides that make any recipe a matter of seconds, read off the fields themselves: a new method needs no line here.

Knows no method and no recipe by name.
"""

from typing import Any

from annotated_types import Ge, Gt

from models.errors import TesseraError
from tests.training.small_run import make, settled, small_run
from training import methods

SMALLEST_BACKBONES = ("test_resnet", "test_vit")  # of timm; a method takes the first it does not refuse

_FEW = {"steps": 2, "epochs": 1, "batch_size": 4, "code_dim": 8}


def few_steps(name: str, **wanted: int) -> list[str]:
    """Overrides of a method's own section: every count of steps 2, of epochs 1, batches of 4, or as `wanted` says.

    name  of a method; a field belongs to the ending of its name: `probe_steps` is one of the steps
    """
    few = {**_FEW, **wanted}
    found = []
    for field, info in methods.method(name).Config.model_fields.items():
        for ending, value in few.items():
            if info.annotation is int and (field == ending or field.endswith(f"_{ending}")):
                floors = [m.ge if isinstance(m, Ge) else m.gt + 1 for m in info.metadata if isinstance(m, (Ge, Gt))]
                found.append(f"{name}.{field}={max([value, *floors])}")
    return found


def smallest_backbone(name: str, folder: Any) -> list[str]:
    """Overrides with the smallest backbone the method takes."""
    for backbone in SMALLEST_BACKBONES:
        overrides = [f"method={name}", f"backbone.name={backbone}"]
        try:
            make(small_run(folder / backbone, *overrides, *few_steps(name)))
        except TesseraError:
            continue
        return overrides
    raise AssertionError(f"{name} takes none of {', '.join(SMALLEST_BACKBONES)}: what does it take?")


def like(page: Any) -> list[str]:
    """Overrides that replace a recipe's networks by the smallest of their kind, and its counts by the least."""
    found = settled(page)
    kind = SMALLEST_BACKBONES[found.backbone.name.startswith(("vit_", "deit"))]
    counts = ["clusters.restarts=1", *(["clusters.distill_steps=2"] if found.clusters.distill_steps else [])]
    runs = ["clusters.runs=2"] if found.clusters.runs > 1 else []
    return [f"backbone.name={kind}", *counts, *runs, *few_steps(found.method)]
