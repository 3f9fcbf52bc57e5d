"""What says where a place is, taken out: against an explicit projection in float64, and where it is known by hand."""

import numpy as np
import pytest

from models import debias
from models.errors import TesseraError
from models.similarity import code_of, likeness

D, H, W, R = 24, 6, 8, 3


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def placed(strength: float = 1.0) -> np.ndarray:
    """A known positional component: R waves over the grid, each along a direction of its own, [D, H, W]."""
    rows, columns = np.mgrid[:H, :W] / (H, W)[0]
    waves = np.stack([rows - rows.mean(), columns - columns.mean(), np.sin(3 * rows + columns)])
    return strength * np.einsum("dr,rhw->dhw", np.linalg.qr(drawn(0, D, R))[0], waves)


def test_it_is_the_projection_onto_what_an_explicit_decomposition_leaves() -> None:
    said, code = drawn(1, D, H, W), drawn(2, D, 5, 7).astype(np.float32)
    rows = said.reshape(D, -1) / np.linalg.norm(said.reshape(D, -1), axis=0)
    rows -= rows.mean(axis=1, keepdims=True)
    variance, vectors = np.linalg.eigh(rows @ rows.T)  # ascending
    for r in (1, 4, 11):
        largest = vectors[:, np.argsort(-variance)[:r]]
        kept = np.eye(D) - largest @ largest.T
        found = debias.directions(said.astype(np.float32), r)
        np.testing.assert_allclose(found.T @ found, np.eye(r), atol=1e-5)
        expected = np.tensordot(kept, code.astype(np.float64), axes=1)
        np.testing.assert_allclose(debias.without(code, found), expected, atol=2e-5)


def test_a_known_component_is_lost_and_nothing_else() -> None:
    middle, waves = drawn(3, D), placed(0.01)  # weak, so that lengths hardly bend it
    basis = np.linalg.qr(drawn(0, D, R))[0]
    middle -= basis @ (basis.T @ middle)
    found = debias.directions(middle[:, None, None] + waves, R)
    np.testing.assert_allclose(np.linalg.svd(basis.T @ found)[1], 1, atol=1e-4)
    shown = drawn(4, D, H, W)
    shown -= np.tensordot(basis @ basis.T, shown, axes=1)  # what is shown says nothing of places
    np.testing.assert_allclose(debias.without(shown + placed(5.0), found), shown, atol=1e-2)
    np.testing.assert_allclose(debias.without(shown, found), shown, atol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3])
def test_auto_takes_those_before_the_largest_drop(noise: float) -> None:
    basis = np.linalg.qr(drawn(0, D, R))[0]
    found = debias.directions(drawn(3, D)[:, None, None] + placed(0.05) + noise * drawn(5, D, H, W), "auto")
    assert found.shape == (D, R)
    np.testing.assert_allclose(np.linalg.svd(basis.T @ found)[1], 1, atol=2e-2)


def test_the_same_thing_is_found_wherever_it_lies_in_another_image() -> None:
    things = drawn(6, 4, D)
    things -= things.mean(axis=0)
    place = placed(40.0)
    found = debias.directions(1e3 * drawn(3, D)[:, None, None] + place, R)
    images = [np.random.default_rng(seed).integers(4, size=(H, W)) for seed in (7, 8)]
    one, other = ((np.moveaxis(things[image], -1, 0) + place).astype(np.float32) for image in images)

    def right(here: np.ndarray, there: np.ndarray) -> float:
        hits = []
        for y in range(H):
            for x in range(W):
                cosines = likeness(code_of(here, (y, x), (H, W)), there, (H, W))
                hits.append(images[1].flat[cosines.argmax()] == images[0][y, x])
        return float(np.mean(hits))

    assert right(one, other) < 0.6
    assert right(debias.without(one, found), debias.without(other, found)) == 1


@pytest.mark.parametrize("asked", [0, -1, D, 500])
def test_more_than_there_are_is_refused(asked: int) -> None:
    with pytest.raises(TesseraError, match=rf"debias = {asked}: .* {D} channels at 8×6 .* write 1 to {D - 1}, auto"):
        debias.directions(drawn(1, D, H, W), asked)


def test_only_what_differs_from_place_to_place_can_be_taken_out() -> None:
    with pytest.raises(TesseraError, match=f"differ along {R} directions; write 1 to {R}, auto"):
        debias.directions(drawn(3, D)[:, None, None] + placed(0.02), R + 1)
    same = np.broadcast_to(drawn(3, D)[:, None, None], (D, H, W))
    assert debias.directions(same, "auto").shape == (D, 0)
    with pytest.raises(TesseraError, match="write auto or 0"):
        debias.directions(same, 1)
