"""Principal directions of batches are those of a full SVD of all points at once."""

import numpy as np
import pytest
import torch

from models.errors import TesseraError
from training.clustering.principal import principal_directions


def test_the_directions_of_a_full_svd_facing_the_mean():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 6)) * [5, 4, 3, 2, 1, 0.5] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 2
    found = principal_directions(torch.from_numpy(points).float().split(77), 4).numpy()
    wanted = np.linalg.svd(points - points.mean(0))[2][:4]
    for mine, theirs in zip(found, wanted, strict=True):
        assert abs(mine @ theirs) == pytest.approx(1, abs=1e-5)
        assert mine @ points.mean(0) > 0
    assert found @ found.T == pytest.approx(np.eye(4), abs=1e-5)


def test_more_directions_than_channels_are_refused():
    with pytest.raises(TesseraError, match=r"of 3 channels have no 4 principal directions: lower clusters\.k"):
        principal_directions([torch.randn(9, 3)], 4)
