"""One run: what it was asked is written down, and it goes on as it began."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from models.errors import UsageError
from models.io.paths import Skipped
from tests.training.small_run import settled
from training import methods
from training.config import recipe, run_folder
from training.config.run import Run, require_resumable, require_same_images
from training.data.images import Images


@pytest.fixture
def run(tmp_path: Path) -> Run:
    root = tmp_path / "data"
    root.mkdir()
    for name in "abc":
        (root / name).write_text(name)
    images = Images(root, [root / n for n in "ab"], skipped=[Skipped(root / "c", "no image")])
    (tmp_path / "run").mkdir()
    run = Run(settled(), images, tmp_path / "run", torch.device("cpu"), Console(file=io.StringIO()))
    run.write_facts()
    return run


def test_a_run_says_what_it_was_asked(run: Run) -> None:
    facts = run_folder.begun(run.folder)
    assert facts is not None
    assert json.loads((run.folder / "run.json").read_text()) == facts
    require_same_images(facts["data"], run.images)
    require_resumable(recipe.parse(facts["recipe"], config_of=methods.config), run.recipe, run.folder)
    assert settled(run.folder / "recipe.toml") == run.recipe
    assert (run.folder / "skipped.txt").read_text() == "c\tno image\n"


def test_a_run_goes_on_only_as_it_began(run: Run) -> None:
    facts = run_folder.begun(run.folder)
    assert facts is not None
    changed = settled(None, "seed=1", "export.exemplars=2")
    with pytest.raises(UsageError, match=r"begun with seed: 0, here 1\. --resume .*recipe.toml .* --set") as refused:
        require_resumable(run.recipe, changed, run.folder)
    assert "exemplars" not in str(refused.value)
    with pytest.raises(UsageError, match=r"another number of clusters of it: tessera recluster \S*run --k 9$"):
        require_resumable(settled(None, "clusters.k=4"), settled(None, "clusters.k=9"), run.folder)
    free = settled(None, "export.exemplars=2", "workers=5", "train.preview_every=7")
    require_resumable(run.recipe, free, run.folder)
    with pytest.raises(UsageError, match="there are now 1 images of other names"):
        require_same_images(facts["data"], replace(run, images=run.images.subset([0])).images)
