"""The files that the benchmark of files beyond the memory draws, and that its bounds and its seams bind."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from benchmarks import large_images
from benchmarks.large_images import CASES, draw, over, seams
from models.bundle import Bundle
from models.inference import Prediction
from service.inference.windowed import on_engine
from tests.tiny import MeanColor


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for case in CASES:
        draw(folder / f"{case}.tif", case, 600, streets=2)
    return folder


def test_all_cases_hold_the_same_picture_in_another_layout(drawn: Path) -> None:
    first = None
    for case in CASES:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(drawn / f"{case}.tif") as file:
            data = file.read()
        first = data if first is None else first
        assert data.shape == (4, 600, 600)
        assert data.dtype == np.uint16
        assert (data == first).all()
    layouts = []
    for case in CASES:
        with tifffile.TiffFile(drawn / f"{case}.tif") as file:
            layouts.append((file.pages[0].is_tiled, len(file.pages[0].dataoffsets)))
    assert layouts == [(True, 4), (False, 600), (False, 1)]


def test_a_network_that_sees_its_window_has_seams_and_one_that_does_not_has_none(
    drawn: Path, tiny_bundle: Path
) -> None:
    manifest = Bundle.load(tiny_bundle).manifest
    seam, interior = seams(drawn / "cog.tif", manifest, on_engine(MeanColor()), 400)
    assert seam < 0.01
    assert interior < 0.01
    assert over({"peak_mb": 1, "share": 1, "seam": seam, "interior": interior}) == []

    class Left(MeanColor):
        """Says something else at a window's left border."""

        def __call__(self, pixels: np.ndarray, *, code: bool = False) -> Prediction:
            scores = super().__call__(pixels).scores
            scores[:, 3, :, 0] += 100
            return Prediction(scores)

    seam, interior = seams(drawn / "cog.tif", manifest, on_engine(Left()), 400)
    assert seam > interior + large_images.SEAM
    assert over({"peak_mb": 800, "share": 0.5, "seam": seam, "interior": interior})[0].startswith("800 MB")
    assert len(over({"peak_mb": 800, "share": 0.5, "seam": seam, "interior": interior})) == 3
