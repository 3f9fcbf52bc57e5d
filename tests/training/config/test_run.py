"""A run's folder: begun once, resumed as it began."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from models.errors import UsageError
from tests.training.small_run import settled
from training import methods
from training.config import recipe
from training.config.recipe import Recipe
from training.config.run import Run, begin, require_same
from training.data.images import Images
from training.data.paths import Skipped


@pytest.fixture
def images(tmp_path: Path) -> Images:
    root = tmp_path / "data"
    root.mkdir()
    for name in "abc":
        (root / name).write_text(name)
    return Images(root, [root / n for n in "ab"], skipped=[Skipped(root / "c", "no image")])


def begun(folder: Path, images: Images) -> Run:
    assert begin(folder, resume=False) is None
    run = Run(settled(), images, folder, torch.device("cpu"), Console(file=io.StringIO()))
    run.write_facts()
    return run


def before(facts: dict[str, Any]) -> Recipe:
    return recipe.parse(facts["recipe"], config_of=methods.config)


def test_a_run_says_what_it_was_asked(tmp_path: Path, images: Images) -> None:
    run = begun(tmp_path / "run", images)
    facts = begin(tmp_path / "run", resume=True)
    assert facts is not None
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == facts
    require_same(facts["data"], before(facts), run)
    assert settled(tmp_path / "run" / "recipe.toml") == run.recipe
    assert (tmp_path / "run" / "skipped.txt").read_text() == "c\tno image\n"


def test_a_run_of_an_earlier_version_keeps_its_conventions(tmp_path: Path, images: Images) -> None:
    """run.json of 0.3 names none: every backbone had DINO's."""
    begun(tmp_path / "run", images)
    facts = begin(tmp_path / "run", resume=True)
    assert facts is not None
    assert before(facts).backbone.family == ""
    for added in ("family", "mean", "std"):
        del facts["recipe"]["backbone"][added]
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    facts = begin(tmp_path / "run", resume=True)
    assert facts is not None
    assert before(facts).backbone.family == "dino"


def test_an_empty_folder_may_be_used_and_a_full_one_not(tmp_path: Path, images: Images) -> None:
    (tmp_path / "empty").mkdir()
    begun(tmp_path / "empty", images)
    with pytest.raises(UsageError, match="holds a run already: add --resume"):
        begin(tmp_path / "empty", resume=False)
    with pytest.raises(UsageError, match="is not empty"):
        begin(images.root, resume=False)
    with pytest.raises(UsageError, match="is not empty"):
        begin(images.root / "a", resume=False)
    with pytest.raises(UsageError, match="leave --resume out"):
        begin(tmp_path / "absent", resume=True)


def test_a_run_goes_on_only_as_it_began(tmp_path: Path, images: Images) -> None:
    run = begun(tmp_path / "run", images)
    facts = begin(tmp_path / "run", resume=True)
    assert facts is not None
    with pytest.raises(UsageError, match=r"seed: 0, here 1\): --resume without --recipe"):
        require_same(facts["data"], before(facts), replace(run, recipe=settled(None, "seed=1")))
    with pytest.raises(UsageError, match="there are now 1 images of other names"):
        require_same(facts["data"], before(facts), replace(run, images=images.subset([0])))
