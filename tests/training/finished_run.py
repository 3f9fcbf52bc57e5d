"""A run of eight drawn images by an untrained network, measured and exported, and its page.

Knows nothing of any published method.
"""

from pathlib import Path

import torch

from models.bundle import Bundle
from tests.training.small_run import small_run
from tests.training.toy_method import Toy, ToyConfig
from training.config import recipe as recipes
from training.config.run import Run
from training.discovery.segmenter import Segmenter
from training.pipeline import finish
from training.report import training_page
from training.stage_costs import StageCosts


def finished(folder: Path, *overrides: str) -> tuple[Run, Bundle]:
    """The run and its bundle."""
    run = small_run(folder, *overrides)
    torch.manual_seed(0)
    toy = Toy(ToyConfig(), run)
    found = Segmenter(toy.encoder().eval(), toy.centroids(), toy.assignment, toy.temperature)
    return run, finish(run, found, StageCosts(run), trained=2.0)


def page(run: Run, bundle: Bundle) -> str:
    """report.html of it."""
    return training_page.page_of(bundle, recipes.encode(run.recipe), run)
