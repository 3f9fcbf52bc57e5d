"""The bound on what is inside, and the time it tells those outside. The clock is the test's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.errors import Busy, TooMany
from service.scheduling.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    clock: Clock | None = None, images: int = 4, mpx: float = 10.0, size: int = 1000, each: int | None = None
) -> Admission:
    return Admission(max_images=images, max_mpx=mpx, max_bytes=size, max_key_images=each, clock=clock or Clock())


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


def test_an_image_weighed_again_counts_once_and_never_against_itself() -> None:
    house = admission(mpx=10)
    with house.place() as place:
        place.weigh(8)
        place.weigh(8)
        assert house.mpx == 8
        place.weigh(30)
        place.weigh(3)
        assert house.mpx == 3
        with house.place() as other:
            other.weigh(7)
            with pytest.raises(Busy):
                place.weigh(4)
        assert house.mpx == 3
    assert house.mpx == 0


def test_work_that_outlives_its_place_weighs_nothing() -> None:
    house = admission()
    with house.place() as place:
        place.weigh(2)
    place.weigh(5)
    assert house.mpx == 0


def test_fractions_of_megapixels_add_up_to_nothing_in_an_empty_house() -> None:
    house = admission(images=100)
    with ExitStack() as inside:
        for _ in range(70):
            inside.enter_context(house.place()).weigh(0.1)
    assert house.mpx == 0


def test_a_key_fills_its_share_and_no_more() -> None:
    house = admission(images=4, each=2)
    with house.place("a"), house.place("a"):
        with pytest.raises(TooMany, match="2 images of 'a'") as refused, house.place("a"):
            pass
        assert refused.value.reason == "key_full"
        with house.place("b"), house.place("b"):
            with pytest.raises(TooMany), house.place("b"):  # its own share, although the house is full too
                pass
            with pytest.raises(Busy) as full, house.place("c"):
                pass
            assert not isinstance(full.value, TooMany)
            assert full.value.reason == "queue_full"
        with house.place("b"):
            pass
    with house.place("a"), house.place("a"):
        assert len(house) == 2


def test_images_without_a_key_have_the_bound_of_the_house_alone() -> None:
    house = admission(images=4, each=1)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(house.place())
        with pytest.raises(Busy) as full, house.place():
            pass
    assert full.value.reason == "queue_full"


def test_a_key_is_told_when_its_own_images_will_be_done() -> None:
    clock = Clock()
    house = admission(clock, images=100, each=3)
    for _ in range(3):
        with house.place("quick"):
            clock.now += 0.1
    slow = [house.place("slow") for _ in range(4)]
    for place in slow[:3]:
        place.__enter__()
    with pytest.raises(TooMany) as unmeasured, house.place("slow"):
        pass
    assert unmeasured.value.retry_after_s == 1  # at the pace of the house: 3 × 0.1 s
    clock.now += 5
    slow[0].__exit__(None, None, None)
    with slow[3], pytest.raises(TooMany) as measured, house.place("slow"):
        pass
    assert measured.value.retry_after_s == 15
    for place in slow[1:3]:
        place.__exit__(None, None, None)
    assert len(house) == 0


def test_nothing_is_kept_of_keys_with_no_image_inside() -> None:
    house = admission(images=4, each=2)
    for i in range(1000):
        with house.place(f"key {i}"), house.place(f"other {i}"):
            pass
    assert not house._keys


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


def test_a_slow_lone_image_does_not_set_the_pace() -> None:
    clock = Clock()
    house = admission(clock, images=100)
    with house.place():
        clock.now += 30.0  # a large photo with everything asked for
    assert house.retry_after_s() == 1
    with ExitStack() as inside:
        for _ in range(40):
            inside.enter_context(house.place())
        with house.place():
            clock.now += 0.1
        with house.place():
            clock.now += 0.1
        assert house.retry_after_s() == 4
