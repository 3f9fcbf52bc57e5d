"""Every recipe in training/recipes/ says how it is run, loads, and runs two steps of every stage on drawn images.

Its networks are replaced by the smallest of their kind and its counts by the least; every other value is the
recipe's own. Recipes that are then the same but for their data set are run once. A new recipe is picked up by itself.
"""

import json
from pathlib import Path

import pytest
import torch

from models.bundle import Bundle
from tests.training.few_steps import like
from tests.training.small_run import RECIPES, SMALL, make, settled, small_run
from training import pipeline
from training.config import recipe
from training.trainer import loop

PAGES = sorted(RECIPES.glob("*.toml"))


def distinct() -> list[Path]:
    """The first page of each kind: what a page says of its data set and its bundle decides no step."""
    found: dict[str, Path] = {}
    for page in PAGES:
        values = recipe.page_of(settled(page, *SMALL, *like(page)))
        decisive = {key: value for key, value in values.items() if key not in ("dataset", "split", "export")}
        found.setdefault(json.dumps(decisive, sort_keys=True), page)
    return list(found.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_says_how_it_is_run(page: Path) -> None:
    head = page.read_text(encoding="utf-8").split("\nmethod")[0]
    assert "python training/train.py" in head
    assert page.stem.startswith("folder") or f"--recipe training/recipes/{page.name}" in head


@pytest.mark.parametrize("page", distinct(), ids=lambda page: page.stem)
def test_runs_two_steps(page: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
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
    pipeline.train(run)
    assert len(Bundle.load(run.folder / "bundle").manifest.clusters) == 3
