"""The bound on what is inside, and the time it tells those outside. The clock is the test's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.admission import Admission
from service.errors import Busy


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None, images: int = 4, mpx: float = 10.0, size: int = 1000) -> Admission:
    return Admission(max_images=images, max_mpx=mpx, max_bytes=size, clock=clock or Clock())


def test_images_are_counted_and_let_go() -> None:
    house = admission(images=2)
    with house.place(), house.place():
        assert len(house) == 2
        with pytest.raises(Busy) as refused, house.place():
            pass
        assert refused.value.reason == "queue_full"
    assert len(house) == 0
    with house.place():
        assert len(house) == 1


def test_megapixels_are_counted_and_one_large_image_always_fits() -> None:
    house = admission(mpx=10)
    with house.place() as alone:
        alone.weigh(40)
        with pytest.raises(Busy, match="megapixels"), house.place() as second:
            second.weigh(0.1)
    assert house.mpx == 0
    with house.place() as first, house.place() as second:
        first.weigh(5)
        second.weigh(5)


def test_bytes_are_counted_and_let_go() -> None:
    house = admission(size=1000)
    with house.hold() as first, house.hold() as second:
        first(600)
        with pytest.raises(Busy, match="uploads"):
            second(500)
        second(400)
    assert house.bytes == 0


def test_retry_after_is_what_is_inside_times_the_measured_pace() -> None:
    clock = Clock()
    house = admission(clock, images=100)
    assert house.retry_after_s() == 1
    with ExitStack() as inside:
        for _ in range(3):
            with house.place():
                clock.now += 2.0  # two seconds an image
            clock.now += 500  # an idle house says nothing about its pace
        for _ in range(8):
            inside.enter_context(house.place())
        assert house.retry_after_s() == 16
        for _ in range(80):
            inside.enter_context(house.place())
        assert house.retry_after_s() == 60


def test_the_oldest_is_the_first_who_is_still_inside() -> None:
    clock = Clock()
    house = admission(clock)
    assert house.oldest_s() == 0
    with house.place():
        clock.now += 3
        with house.place():
            assert house.oldest_s() == 3


def test_flooded_only_after_ten_seconds_near_the_bound() -> None:
    clock = Clock()
    house = admission(clock, images=4)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(house.place())
        assert not house.flooded()
        clock.now += 11
        assert house.flooded()
    assert not house.flooded()
