"""Pictures while training goes on, which ends with the same bits with and without them."""

import numpy as np
import pytest
import torch
from PIL import Image

from models import palette
from tests.training.few_steps import few_steps, smallest_backbone
from tests.training.small_run import draw, make, small_run
from training import methods
from training.report.previews import Previews
from training.trainer import loop


@pytest.mark.parametrize("name", methods.names())
def test_training_ends_with_the_bits_it_has_without(name, tmp_path):
    images = draw(tmp_path / "images")
    overrides = [*smallest_backbone(name, tmp_path / "try"), *few_steps(name)]

    def trained(folder, every):
        run = small_run(tmp_path / folder, *overrides, f"train.preview_every={every}", images=images)
        method = make(run)
        loop.fit(method, method.stages(), run, watch=Previews(run, method))
        return run, method

    (run, with_pictures), (bare, without) = trained("with", 1), trained("without", 0)
    for key, wanted in without.state_dict().items():
        assert torch.equal(with_pictures.state_dict()[key], wanted), key
    steps = sum(stage.steps for stage in with_pictures.stages())
    if not steps:
        pytest.skip("nothing is learned")
    pictures = sorted((run.folder / "previews").iterdir())
    assert len(pictures) == steps
    assert not (bare.folder / "previews").exists()
    with Image.open(pictures[-1]) as shown:
        picture = np.asarray(shown)
    assert picture.shape == (2 * 64, 4 * 64, 3)
    assert np.array_equal(picture[:64, :64], images[0])
    colors = {tuple(color) for color in palette.distinct(3).tolist()}
    assert {tuple(color) for color in picture[64:].reshape(-1, 3).tolist()} <= colors


def test_a_picture_that_cannot_be_written_ends_the_pictures_alone(tmp_path):
    run = small_run(tmp_path, "method=picie", "backbone.name=test_resnet", "train.preview_every=1")
    (run.folder / "previews").write_text("in the way")
    method = make(run)
    previews = Previews(run, method)
    for step in (1, 2):
        previews(method.stages()[0], step)
    assert run.console.file.getvalue().count("no previews from here on") == 1
