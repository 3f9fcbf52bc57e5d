"""Slides as scanners write them: levels and their pixels as tifffile has them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from models.io import tiff_rows
from models.io.samples import Choice, Limits
from training.data.synthetic import street

FULL = street((700, 1100), seed=3)
LEVELS = [FULL, FULL[::4, ::4], FULL[::16, ::16]]


def svs(path: Path) -> Path:
    """As Aperio lays them out: the full size, a thumbnail in strips, smaller levels, then label and macro."""
    tiles = {"photometric": "ycbcr", "compression": "jpeg", "tile": (240, 240), "metadata": None}
    said = "Aperio Image Library v11.2.1\r\n1100x700 (240x240) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as file:
        file.write(LEVELS[0], description=said, subfiletype=0, **tiles)
        strips = {"photometric": "rgb", "rowsperstrip": 16, "metadata": None}
        file.write(FULL[::10, ::10], description="Aperio thumbnail", subfiletype=0, **strips)
        for level in LEVELS[1:]:
            file.write(level, description=said, subfiletype=0, **tiles)
        file.write(FULL[:120, :110], description="Aperio label 110x120", subfiletype=1, **strips)
        file.write(FULL[:90, :250], description="Aperio macro 250x90", subfiletype=9, **strips)
    return path


def ome(path: Path) -> Path:
    """With its levels below the image, as Bio-Formats writes them."""
    how = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        file.write(LEVELS[0], subifds=2, metadata={"axes": "YXS"}, **how)
        for level in LEVELS[1:]:
            file.write(level, subfiletype=1, **how)
    return path


@pytest.mark.parametrize("write", [svs, ome])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_are_found_and_read_in_rows(write: object, level: int, tmp_path: Path) -> None:
    assert callable(write)
    path = write(tmp_path / ("a.svs" if write is svs else "a.ome.tif"))
    with tifffile.TiffFile(path) as file:
        expected = file.series[0].levels[level].asarray()
    with tiff_rows.open_rows(path, Limits(), Choice(level=level)) as source:
        assert source.size == expected.shape[:2]
        tops = range(0, source.size[0], 100)
        image = np.concatenate([source.rows(top, min(top + 100, source.size[0]))[0] for top in tops])
    assert np.abs(image.astype(int) - expected).max() <= (3 if write is svs else 0)
