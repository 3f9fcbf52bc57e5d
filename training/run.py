"""One training run: its recipe, its images, its folder, its device.

Knows nothing of methods. What a method may ask of its surroundings is here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from training.datasets import Images
from training.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """What every part of the training shares.

    folder   where the run writes; `cache` below it keeps features and neighbors between runs
    """

    recipe: Recipe
    images: Images
    folder: Path
    device: torch.device
    console: Console

    @property
    def cache(self) -> Path:
        """Folder for what is computed once (features, neighbors, regions)."""
        path = self.folder / "cache"
        path.mkdir(parents=True, exist_ok=True)
        return path
