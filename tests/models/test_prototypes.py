import numpy as np
import pytest

from models import assign
from models.prototypes import Classifier, Example, Taught, code_at
from models.types import Array

MIDDLE = (0.5, 0.5)


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def clouds(dim: int, classes: int, each: int, seed: int = 0, spread: float = 0.5) -> tuple[Array, Array]:
    """Centers [classes, D], and codes [classes, each, D] around them that vary most along what tells nothing."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(classes, dim)))
    codes = centers[:, None] + spread * rng.normal(size=(classes, each, dim)) / np.sqrt(dim)
    codes = codes + 0.8 * rng.normal(size=(classes, each, 1)) * unit(rng.normal(size=dim))
    return centers, np.asarray(codes, np.float32)


def fitted(codes: Array, count: int, **more: object) -> Classifier:
    examples = [Example(m, code, MIDDLE) for m, own in enumerate(codes) for code in own[:count]]
    centroids = np.eye(2, codes.shape[-1], dtype=np.float32)
    found = Classifier.fit(centroids, [Taught(m) for m in range(len(codes))], examples, **more)  # type: ignore[arg-type]
    assert found is not None
    return found


def answers(classifier: Classifier, codes: Array) -> Array:
    """The class of each of codes [n, D]."""
    maps = classifier.scores(np.ascontiguousarray(codes.T[:, None]), np.zeros((2, 1, len(codes)), np.float32))
    return np.asarray(classifier.ids[maps[:, 0].argmax(axis=0)])


@pytest.mark.parametrize(("dim", "classes"), [(4, 2), (72, 6), (768, 5)])
@pytest.mark.parametrize("count", [1, 10])
def test_codes_go_to_the_class_that_they_are_like(dim: int, classes: int, count: int) -> None:
    _, codes = clouds(dim, classes, 40, spread=0.3 if dim > 4 else 0.1)
    found = fitted(codes, count)
    right = np.mean([answers(found, own[10:]) == m for m, own in enumerate(codes)])
    assert right > (0.6 if count == 1 else 0.8)


def test_directions_in_which_one_class_varies_count_less() -> None:
    rng = np.random.default_rng(2)
    apart, alike = np.eye(8)[:2]
    codes = np.eye(8)[2] + np.array([-0.2, 0.2])[:, None, None] * apart + 0.02 * rng.normal(size=(2, 110, 8))
    codes = np.asarray(codes + 0.4 * rng.normal(size=(2, 110, 1)) * (alike + 0.5 * apart), np.float32)
    means = unit(codes[:, :10].mean(axis=1))
    plain = np.mean([(own[10:] @ means.T).argmax(axis=1) == m for m, own in enumerate(codes)])
    shrunk = np.mean([answers(fitted(codes, 10), own[10:]) == m for m, own in enumerate(codes)])
    assert shrunk > plain + 0.1


def test_the_length_of_a_code_is_no_matter() -> None:
    _, codes = clouds(16, 4, 30)
    found = fitted(codes, 10, fractions=[0.9, 0.1])
    again = fitted(codes * 37, 10, fractions=[0.9, 0.1])
    flat = codes.reshape(-1, 16)
    assert (answers(found, flat) == answers(again, 0.01 * flat)).all()


def test_scores_are_products_with_the_code_and_the_same_every_time() -> None:
    _, codes = clouds(8, 3, 30)
    found, nothing = fitted(codes, 10), np.zeros((2, 5, 6), np.float32)
    grid = np.random.default_rng(1).normal(size=(8, 5, 6)).astype(np.float32)
    said = found.scores(grid, nothing)
    assert found.scores(3 * grid, nothing) == pytest.approx(3 * said, abs=1e-5)
    assert found.scores(grid[:, 2:3, 4:5], nothing) == pytest.approx(said[:, 2:3, 4:5], abs=1e-5)
    assert fitted(codes, 10).scores(grid, nothing).tobytes() == said.tobytes()


def test_overlapping_classes_are_as_frequent_as_the_clusters_say() -> None:
    rng = np.random.default_rng(0)
    centers = np.eye(3, 12)
    codes = np.asarray(centers[[0, 0, 2], None] + 0.5 * rng.normal(size=(3, 60, 12)) / np.sqrt(12), np.float32)
    codes[1] += np.float32(0.1) * np.eye(12, dtype=np.float32)[1]
    classes = [Taught(m) for m in range(3)]
    examples = [Example(m, code, MIDDLE) for m in range(3) for code in codes[m, :10]]
    for rare, often in ((2, 0), (0, 2)):
        fractions = np.where(np.arange(3) == often, 0.94, 0.03)
        found = Classifier.fit(centers.astype(np.float32), classes, examples, list(fractions))
        plain = Classifier.fit(centers.astype(np.float32), classes, examples)
        assert found is not None
        assert plain is not None
        gained = found.scores(codes[0, :1].T[:, None], codes[0, :3, :1, None]) - plain.scores(
            codes[0, :1].T[:, None], codes[0, :3, :1, None]
        )
        assert gained[often] > gained[rare]


def test_a_class_is_not_where_it_is_said_not_to_be() -> None:
    _, codes = clouds(24, 4, 30)
    wrong = unit(codes[0, 20])
    examples = [Example(m, code, MIDDLE) for m, own in enumerate(codes) for code in own[:10]]
    classes = [Taught(m) for m in range(4)]
    centroids = np.eye(3, 24, dtype=np.float32)
    found = Classifier.fit(centroids, classes, [*examples, Example(0, wrong, MIDDLE, negative=True)])
    assert found is not None
    assert answers(fitted(codes, 10), wrong[None]) == [0]
    assert answers(found, wrong[None]) != [0]
    flat = codes[:, 10:20].reshape(-1, 24)
    far = flat[unit(flat) @ wrong < 0.8]
    assert len(far) > 20
    assert (answers(found, far) == answers(fitted(codes, 10), far)).all()  # and where codes are unlike nothing changes


def test_a_place_that_is_neither_of_two_classes_is_the_third() -> None:
    centroids = np.eye(3, 6, dtype=np.float32)
    place = unit(np.array([0.8, 0.7, 0.3, 0, 0, 0]))
    examples = [Example(m, centroids[m], MIDDLE) for m in range(3)]
    examples += [Example(m, place, MIDDLE, negative=True) for m in (0, 1)]
    found = Classifier.fit(centroids, [Taught(m, (m,)) for m in range(3)], examples)
    assert found is not None
    code = place[:, None, None]
    assert found.ids[found.scores(code, np.einsum("kd,dhw->khw", centroids, code)).argmax()] == 2


def test_the_temperature_says_how_likely_a_class_is() -> None:
    for spread, least, most in ((0.3, 0.9, 1.0), (2.5, 0.4, 0.95)):
        _, codes = clouds(72, 6, 60, spread=spread)
        found = fitted(codes, 10)
        assert found.temperature is not None
        flat, truth = unit(codes[:, 10:].reshape(-1, 72)), np.repeat(np.arange(6), 50)
        maps = found.scores(np.ascontiguousarray(flat.T[:, None]), np.zeros((2, 1, len(flat)), np.float32))
        said = assign.probabilities(maps, None, (1, len(flat)), temperature=found.temperature, assignment="dot")[:, 0]
        right = (said.argmax(axis=0) == truth).mean()
        assert least < said.max(axis=0).mean() <= most
        assert said.max(axis=0).mean() == pytest.approx(right, abs=0.15)


def test_clusters_alone_are_those_clusters_joined() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    code = np.zeros((3, 6, 7), np.float32)
    found = Classifier.fit(np.eye(5, 3, dtype=np.float32), [Taught(9, (1, 3)), Taught(4, (0,)), Taught(7)], [])
    assert found is not None
    assert found.ids.tolist() == [4, 9]
    known = scores[[0, 1, 3]].argmax(axis=0)
    assert (found.scores(code, scores).argmax(axis=0) == np.array([0, 1, 1])[known]).all()


def test_clusters_tell_where_examples_do_not() -> None:
    centroids = np.eye(3, 6, dtype=np.float32)
    classes = [Taught(0, (0,)), Taught(1, (1,)), Taught(2)]
    between = unit(np.array([0.3, 0.3, 0, 1, 0, 0]))
    found = Classifier.fit(centroids, classes, [Example(m, between, MIDDLE) for m in (0, 1, 2)])
    assert found is not None
    code = unit(np.array([0.2, 0.9, 0, 0.4, 0, 0]))[:, None, None]
    assert found.ids[found.scores(code, np.einsum("kd,dhw->khw", centroids, code)).argmax()] == 1


def beside_clusters(examples: list[Example], taught: list[Taught], codes: Array) -> tuple[Array, Array]:
    """What each of codes [n, D] is where axes 0..4 are clusters, of which those that nobody has are classes 100 + k;
    and which cluster."""
    centroids = np.eye(5, codes.shape[1], dtype=np.float32)
    free = set(range(5)) - {k for one in taught for k in one.clusters}
    found = Classifier.fit(centroids, [*taught, *(Taught(100 + k, (k,)) for k in free)], examples, [0.2] * 5)
    assert found is not None
    scores = np.ascontiguousarray((centroids @ codes.T)[:, None])
    maps = found.scores(np.ascontiguousarray(codes.T[:, None]), scores)
    assert np.isfinite(maps).all()
    return found.ids[maps[:, 0].argmax(axis=0)], scores[:, 0].argmax(axis=0)


def test_one_click_beside_clusters_takes_what_is_like_it_and_nothing_else_moves() -> None:
    rng = np.random.default_rng(0)
    codes = unit(rng.normal(size=(2000, 12)))
    place = unit(np.eye(12)[0] + 1.5 * np.eye(12)[7])
    codes[:200] = unit(place + 0.15 * rng.normal(size=(200, 12)))
    said, cluster = beside_clusters([Example(0, place, MIDDLE)], [Taught(0)], codes)
    like = codes @ place
    assert (said[like > 0.8] == 0).all()
    assert (said[like < 0.45] != 0).all()
    assert (said[said != 0] == 100 + cluster[said != 0]).all()
    near = (like > 0.5) & (like < 0.7)
    assert (said[near & (cluster == 0)] == 0).mean() > 0.8 > (said[near & (cluster != 0)] == 0).mean()


def test_the_more_alike_examples_are_the_less_far_they_reach_beside_clusters() -> None:
    codes = unit(np.random.default_rng(0).normal(size=(4000, 8)))
    place, across = unit(np.eye(8)[6]), np.eye(8)[7]
    shares = []
    for apart in (0.1, 0.8):
        examples = [Example(0, unit(place + side * apart * across), MIDDLE) for side in (-1, 1)]
        shares.append((beside_clusters(examples, [Taught(0)], codes)[0] == 0).mean())
    assert 0 < shares[0] < shares[1] < 0.3


def test_beside_clusters_a_class_keeps_its_own_and_examples_tell_among_themselves() -> None:
    codes = unit(np.random.default_rng(1).normal(size=(2000, 12)))
    examples = [Example(m, unit(np.eye(12)[5 + m] + np.eye(12)[9]), MIDDLE) for m in (0, 1)]
    taught = [Taught(0, (3,)), Taught(1)]
    said, cluster = beside_clusters(examples, taught, codes)
    assert (said[cluster == 3] < 2).all()
    assert (said[(cluster == 3) & (codes @ examples[1].code < 0.3)] == 0).all()
    pointed = unit(np.array([one.code for one in examples]))
    assert beside_clusters(examples, taught, pointed)[0].tolist() == [0, 1]


def test_nothing_taught_is_none_and_one_class_is_everywhere() -> None:
    centroids = np.eye(2, 4, dtype=np.float32)
    assert Classifier.fit(centroids, [Taught(0)], [Example(0, np.ones(4, np.float32), MIDDLE, negative=True)]) is None
    one = Classifier.fit(centroids, [Taught(3)], [Example(3, np.ones(4, np.float32), MIDDLE)], [0.5, 0.5])
    assert one is not None
    assert one.scores(np.full((4, 2, 2), 0.5, np.float32), centroids[:, :2, None]) == pytest.approx(1)  # its cosine


@pytest.mark.parametrize("fractions", [None, [0.5, 0.5]])
def test_clicks_that_contradict_each_other_are_finite(fractions: list[float] | None) -> None:
    same = np.ones(4, np.float32)
    examples = [Example(m, same, MIDDLE, negative) for m in (0, 1) for negative in (False, False, True)]
    examples.append(Example(0, np.zeros(4, np.float32), MIDDLE))
    found = Classifier.fit(np.eye(2, 4, dtype=np.float32), [Taught(0), Taught(1)], examples, fractions)
    assert found is not None
    assert np.isfinite(found.scores(np.ones((4, 2, 2), np.float32), np.ones((2, 2, 2), np.float32))).all()


def test_the_mean_code_of_a_place() -> None:
    code = np.random.default_rng(0).normal(size=(5, 4, 6)).astype(np.float32)
    mask = np.zeros((40, 60), bool)
    mask[10:23, 31:50] = True
    whole = np.concatenate([strip for _, strip in assign.upsampled(code, mask.shape)], axis=1)
    assert code_at(code, mask) == pytest.approx(unit(whole[:, mask].mean(axis=1)), abs=1e-5)
    with pytest.raises(ValueError, match="mark at least one pixel"):
        code_at(code, np.zeros((4, 4), bool))
