"""Drift: nothing at first, 0 for what training saw, 1 for the opposite, and the past fades."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.repository.drift import Drift, Unfamiliar


def counts(*pixels: int) -> np.ndarray:
    return np.array(pixels, np.int64)


def test_nothing_is_said_of_a_handful_of_images() -> None:
    drift = Drift([0.5, 0.5], least=50)
    for _ in range(49):
        drift.add(counts(10, 0))
    assert drift.distance() is None
    drift.add(counts(10, 0))
    assert drift.distance() == pytest.approx(0.5)


def test_shares_of_training_are_no_drift_and_strangers_are_all_of_it() -> None:
    same, other = Drift([0.75, 0.25, 0.0], least=1), Drift([1.0, 0.0, 0.0], least=1)
    same.add(counts(300, 100, 0))
    other.add(counts(0, 1, 7))
    assert same.distance() == pytest.approx(0)
    assert other.distance() == pytest.approx(1)


def test_every_image_weighs_the_same_whatever_its_size() -> None:
    drift = Drift([0.5, 0.5], least=1)
    drift.add(counts(4_000_000, 0))
    drift.add(counts(0, 100))
    assert drift.distance() == pytest.approx(0)


def test_the_past_fades_over_the_window() -> None:
    drift = Drift([1.0, 0.0], window=10, least=1)
    for _ in range(1000):
        drift.add(counts(8, 0))
    for _ in range(10):
        drift.add(counts(0, 8))
    assert drift.distance() == pytest.approx(1 - 0.9**10)


def test_an_image_of_nothing_is_not_counted() -> None:
    drift = Drift([1.0, 0.0], least=1)
    drift.add(counts(0, 0))
    assert (drift.images, drift.distance()) == (0, None)


def test_many_threads_lose_no_image() -> None:
    drift = Drift([0.25] * 4, window=10_000, least=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: drift.add(np.eye(4, dtype=np.int64)[i % 4]), range(4000)))
    assert drift.images == 4000
    assert drift.distance() == pytest.approx(0, abs=1e-9)


def test_several_servers_are_as_one_that_saw_all() -> None:
    one, two, all_ = (Drift([0.5, 0.25, 0.25], window=1000, least=60) for _ in range(3))
    for server, image in [(one, counts(9, 1, 0))] * 40 + [(two, counts(0, 1, 1))] * 30:
        server.add(image)
        all_.add(image)
    assert one.distance() is None
    assert two.distance([one.seen()]) == pytest.approx(one.distance([two.seen()])) == pytest.approx(all_.distance())


def test_the_share_of_strangers_is_of_the_latest_images_whose_familiarity_is_known() -> None:
    one, two = Unfamiliar(window=100, least=10), Unfamiliar(window=100, least=10)
    for familiar in (True, None) * 9:
        one.add(familiar)
    assert (one.seen(), one.share()) == ((9, 0.0), None)
    one.add(False)
    assert one.share() == pytest.approx(0.1)
    for _ in range(30):
        two.add(False)
    assert one.share([two.seen()]) == two.share([one.seen()]) == pytest.approx(31 / 40)
    for _ in range(1000):
        two.add(True)
    assert two.share() == pytest.approx(0, abs=1e-3)
