"""Every recipe in training/recipes/ says how it is run, loads, and runs two steps of every stage on drawn images.

Its networks are replaced by the smallest of their kind and its counts by the least; every other value is the
recipe's own. A new recipe is picked up by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.bundle import Bundle
from tests.training.few_steps import like
from tests.training.small_run import RECIPES, make, small_run
from training import train
from training.trainer import loop

PAGES = sorted(RECIPES.glob("*.toml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_says_how_it_is_run_and_runs_two_steps(page: Path, tmp_path: Path) -> None:
    head = page.read_text(encoding="utf-8").split("\nmethod")[0]
    assert "train.py" in head
    assert page.stem.startswith("folder") or f"--recipe training/recipes/{page.name}" in head
    run = small_run(tmp_path, *like(page), page=page)
    method = make(run)
    stages = method.stages()
    loop.fit(method, stages, run)
    assert all(stage.steps >= 2 for stage in stages)
    assert all(bool(torch.isfinite(value).all()) for value in method.state_dict().values())
    centroids = method.centroids()
    assert centroids is None or centroids.shape[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_ends_in_a_bundle(page: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, *like(page), page=page)
    train.train(run)
    assert len(Bundle.load(run.folder / "bundle").manifest.clusters) == 3
