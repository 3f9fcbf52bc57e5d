"""A run on eight drawn images, for tests of methods: three kinds of ground, nothing from outside.

Knows nothing of any method.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from training import methods
from training.config import recipe
from training.config.recipe import Recipe
from training.config.run import Run
from training.data.images import Images
from training.data.synthetic import street
from training.methods.base import Method


def draw(folder: Path, count: int = 8, side: int = 64) -> Images:
    """`count` images of `side`² pixels: sky above, a stripy ground below, a red square somewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        rng = np.random.default_rng(i)
        image = np.empty((side, side, 3), np.uint8)
        horizon = int(rng.integers(side // 3, 2 * side // 3))
        image[:horizon] = (90, 140, 220)
        image[horizon:] = (60, 120, 50)
        image[horizon::4] = (40, 80, 30)
        top, left = rng.integers(0, side - side // 4, 2)
        image[top : top + side // 4, left : left + side // 4] = (200, 40, 40)
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    return Images(folder, paths)


def several_kinds(folder: Path, count: int) -> Images:
    """`count` images of 160 × 214 pixels of four kinds: streets, their negatives, meadows, those recolored."""
    meadows = draw(folder.with_name(f"{folder.name}-meadows"), count=count, side=160)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        image = street((160, 214), i) if i % 4 < 2 else meadows[i]
        if i % 4 == 1:
            image = 255 - image
        if i % 4 == 3:
            image = np.roll(image, 1, axis=2)[::-1]
        paths.append(folder / f"{i:03d}.png")
        Image.fromarray(np.ascontiguousarray(image)).save(paths[-1])
    return Images(folder, paths)


SMALL = ["backbone.weights=random", "input.train_size=64", "input.size=64", "clusters.k=3", "workers=0"]
RECIPES = Path(recipe.__file__).parents[1] / "recipes"


def settled(page: Path | None = None, *overrides: str) -> Recipe:
    """The recipe of a file, or of none."""
    return recipe.parse(recipe.read(page) if page else {}, config_of=methods.config, overrides=overrides)


def small_run(folder: Path, *overrides: str, images: Images | None = None, page: Path | None = None) -> Run:
    """A run under `folder` with random weights, crops of 64 pixels and 3 clusters, unless overridden."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return Run(
        settled(page, *SMALL, *overrides),
        images or draw(folder / "images"),
        folder / "run",
        torch.device("cpu"),
        Console(file=io.StringIO()),
    )


def make(run: Run) -> Any:
    """The run's method, prepared."""
    found: type[Method] = methods.method(run.recipe.method)
    built = found(found.Config(**run.recipe.options), run)
    built.prepare()
    return built
