"""Maps show colors and numbers, whatever a photo's shape; sizes are bounded."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from models.manifest import Cluster
from training.report import pictures

CLUSTERS = [
    Cluster(name="cluster 0", color="#ff0000", fraction=0.5),
    Cluster(name="<road> " + "x" * 50, color="#00ff00", fraction=0.5),
]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((60, 80), (60, 80)),
        ((720, 960), (360, 480)),
        ((100, 4000), (24, 960)),
        ((3000, 30), (960, 10)),
        ((1, 1), (1, 1)),
    ],
)
def test_photos_are_shown_at_a_bounded_size_and_never_enlarged(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert pictures.shown_size(*size) == wanted


def test_a_map_has_the_clusters_colors_gray_without_data_and_a_number_in_each_part() -> None:
    labels = np.zeros((90, 120), np.uint8)
    labels[:, 60:], labels[:20] = 1, 255
    over = pictures.map_over(np.zeros((90, 120, 3), np.uint8), labels, CLUSTERS)
    red, green, blank = over[88, 2], over[88, 118], over[2, 2]
    assert red[0] > 150
    assert red[1] == 0
    assert green[1] > 150
    assert len(set(blank.tolist())) == 1
    white = over.min(axis=2) > 150
    assert white[:, :60].any()
    assert white[:, 60:].any()
    assert not white[:20].any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_maps_of_any_shape_are_drawn(size: tuple[int, int]) -> None:
    assert pictures.map_over(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), CLUSTERS).shape == (*size, 3)


def test_the_legend_names_what_is_large_escaped_and_cut() -> None:
    labels = np.zeros((10, 100), np.uint8)
    labels[:, 70:] = 1
    html = pictures.legend(labels, CLUSTERS)
    assert re.findall(r"(\d+)%", html) == ["70", "30"]
    assert "cluster 0 70%" in html
    assert "1 · &lt;road&gt;" in html
    assert "x" * 40 not in html
    labels[:] = 0
    labels[0, 0] = 1
    assert "road" not in pictures.legend(labels, CLUSTERS)


def test_an_image_is_in_the_page_itself() -> None:
    tag = pictures.photo(np.full((20, 30, 3), 200, np.uint8), 'a "photo"')
    assert 'alt="a &quot;photo&quot;" width="30" height="20"' in tag
    data = base64.b64decode(re.findall(r'base64,([^"]+)"', tag)[0])
    assert Image.open(io.BytesIO(data)).size == (30, 20)
