from pathlib import Path

import numpy as np
import pytest

from benchmarks.teach import CLASSES, Split, clicks, counted, more_clicks
from models.bundle import Bundle
from models.prototypes import Classifier, Taught
from models.types import WHOLE


def halves() -> Split:
    """Two frames of 12×16, the left half class 0 and the right half class 3, whose codes are of two directions."""
    labels = np.full((2, 12, 16), 3, np.uint8)
    labels[:, :, :8] = 0
    labels[:, 0] = 255
    codes = np.zeros((2, 4, 6, 8), np.float32)
    codes[:, 0, :, :4], codes[:, 1, :, 4:] = 1, 1
    pixels = np.stack([np.bincount(one.ravel(), minlength=256)[:CLASSES] for one in labels])
    return Split(codes, labels, np.array(["a", "b"]), WHOLE, pixels)


@pytest.mark.parametrize("by", ["pixel", "image"])
def test_clicks_are_on_their_class_and_the_same_every_time(by: str) -> None:
    split = halves()
    found = clicks(split, np.arange(2), 5, draw=1, by=by)
    assert [e.class_id for e in found] == [0] * 5 + [3] * 5
    for e in found:
        y, x = (int(at * side) for at, side in zip(e.at, (12, 16), strict=True))
        assert split.labels[0, y, x] == e.class_id
        assert np.linalg.norm(e.code) == pytest.approx(1, abs=1e-5)
    again = clicks(split, np.arange(2), 5, draw=1, by=by)
    assert all(a.code.tobytes() == b.code.tobytes() for a, b in zip(found, again, strict=True))


def test_a_label_map_is_counted_by_the_ids_of_its_maps() -> None:
    split = halves()
    table = counted(split, np.arange(2), lambda code: code[:2], [0, 3], CLASSES)
    assert table[0, 0] == table[3, 3] == 2 * 11 * 8
    assert table.sum() == 2 * 11 * 16


def test_clicks_where_it_is_wrong_and_where_it_is_asked(tiny_bundle: Path) -> None:
    split = halves()
    few = clicks(split, np.arange(2), 3, draw=0, by="pixel")
    turned = [e._replace(class_id=3 - e.class_id) for e in few]  # taught the wrong way round
    classifier = Classifier.fit(np.eye(2, 4, dtype=np.float32), [Taught(0), Taught(3)], turned)
    assert classifier is not None
    for how in ("wrong", "negative", "suggested"):
        more = more_clicks(Bundle.load(tiny_bundle), split, turned, classifier, how, draw=0)[len(turned) :]
        assert len(more) == 5 * CLASSES
        for e in more:
            truth = 0 if e.at[1] < 0.5 else 3
            assert (e.negative, e.class_id) == ((True, 3 - truth) if how == "negative" else (False, truth))
