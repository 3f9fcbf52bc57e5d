"""Where a picture holds data, in bits: any map of it can ask."""

from typing import Any

import numpy as np
import pytest

from models.io.samples import Decoded
from service.formats.result import NO_DATA
from service.inference import results
from service.inference.results import Facts, NetworkOutput, Validity


def test_data_everywhere_is_kept_as_nothing() -> None:
    assert Validity.of(None) is None
    assert Validity.of(np.ones((3, 5), bool)) is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 16), (37, 53)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (37, 53), (74, 106), (90, 31), (300, 200)])
def test_the_nearest_pixel_tells_of_a_map_of_any_size(
    shape: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_STRIP_PX", 1000)
    valid = np.random.default_rng(sum(shape)).random(shape) < 0.5
    valid[0, 0] = False
    kept = Validity.of(valid)
    assert kept is not None
    rows = ((np.arange(size[0]) + 0.5) / size[0] * shape[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) / size[1] * shape[1]).astype(int)
    expected = valid[rows][:, columns]
    map_: Any = np.zeros(size, np.uint8)
    assert kept.erase(map_) is map_
    assert ((map_ == NO_DATA) == ~expected).all()
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        assert kept.at(y, x, size) == expected[y, x]


def test_a_kept_answer_counts_its_bits() -> None:
    facts = Facts.of(Decoded(np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), bool)))
    scores = np.zeros((5, 4, 8), np.float32)
    assert NetworkOutput(scores, None, (40, 80), (0, 0, 1, 1), facts).nbytes == scores.nbytes + 40 * 10
