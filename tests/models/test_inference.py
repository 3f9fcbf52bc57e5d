"""One image through one network, and the golden image that says whether it is the right one."""

from pathlib import Path

import numpy as np
import pytest

from models import bundle, inference
from models.bundle import BundleError
from models.inference import Prediction
from tests.models.stripes import Patches, parts, thirds


def test_segment_and_self_test(tmp_path: Path) -> None:
    saved = bundle.save(tmp_path / "stripes", **parts())
    assert (inference.segment(saved, Patches(), thirds().image) == thirds().labels).mean() > 0.99
    assert inference.self_test(saved, Patches()) > 0.99

    def mirrored(pixels: np.ndarray, *, code: bool = False) -> Prediction:
        return Patches()(pixels[:, :, ::-1], code=code)

    with pytest.raises(BundleError, match="golden image"):
        inference.self_test(saved, mirrored)
