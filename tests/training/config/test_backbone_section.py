"""What a recipe asks of the backbone, every method hears."""

from pathlib import Path

import pytest

from models.nets.backbone import BackboneError
from models.preprocess import IMAGENET
from tests.training.small_run import make, small_run
from training import methods


@pytest.mark.parametrize("name", methods.names())
def test_no_method_ignores_which_features_are_asked_for(tmp_path: Path, name: str) -> None:
    run = small_run(tmp_path, f"method={name}", "backbone.name=resnet10t", "backbone.features=keys")
    with pytest.raises(BackboneError, match="no keys"):
        make(run)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_normalizes_pixels_as_the_recipe_says(tmp_path: Path, name: str) -> None:
    run = small_run(tmp_path, f"method={name}", "backbone.name=resnet10t", "backbone.mean=[0.1, 0.2, 0.3]")
    network = make(run).network
    assert (network.mean.flatten() / 255).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert network.backbone.normalization.std == IMAGENET.std
