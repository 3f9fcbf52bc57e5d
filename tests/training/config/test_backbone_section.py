"""What a recipe asks of the backbone, every method hears."""

from pathlib import Path

import pytest

from models.nets.backbone import BackboneError
from tests.training.small_run import make, small_run
from training import methods


@pytest.mark.parametrize("name", methods.names())
def test_no_method_ignores_which_features_are_asked_for(tmp_path: Path, name: str) -> None:
    run = small_run(tmp_path, f"method={name}", "backbone.name=resnet10t", "backbone.features=keys")
    with pytest.raises(BackboneError, match="no keys"):
        make(run)
