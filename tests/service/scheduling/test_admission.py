"""The bound on what is inside, and the time it tells those outside. The clock is the test's."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.errors import Busy, TooMany
from service.scheduling.admission import Admission
from service.scheduling.fair_queue import BACKGROUND
from tests.service.fakes import Clock
from tests.service.fleet.pair import fleets


def admission(
    clock: Clock | None = None, images: int = 4, mpx: float = 10.0, size: int = 1000, each: int | None = None
) -> Admission:
    return Admission(max_images=images, max_mpx=mpx, max_bytes=size, max_key_images=each, clock=clock or Clock())


def test_images_are_counted_and_let_go() -> None:
    runtime = admission(images=2)
    with runtime.ticket(), runtime.ticket():
        assert len(runtime) == 2
        with pytest.raises(Busy) as refused, runtime.ticket():
            pass
        assert refused.value.reason == "queue_full"
    assert len(runtime) == 0
    with runtime.ticket():
        assert len(runtime) == 1


def test_megapixels_are_counted_and_one_large_image_always_fits() -> None:
    runtime = admission(mpx=10)
    with runtime.ticket() as alone:
        alone.set_megapixels(40)
        with pytest.raises(Busy, match="megapixels"), runtime.ticket() as second:
            second.set_megapixels(0.1)
    assert runtime.mpx == 0
    with runtime.ticket() as first, runtime.ticket() as second:
        first.set_megapixels(5)
        second.set_megapixels(5)


def test_an_image_weighed_again_counts_once_and_never_against_itself() -> None:
    runtime = admission(mpx=10)
    with runtime.ticket() as ticket:
        ticket.set_megapixels(8)
        ticket.set_megapixels(8)
        assert runtime.mpx == 8
        ticket.set_megapixels(30)
        ticket.set_megapixels(3)
        assert runtime.mpx == 3
        with runtime.ticket() as other:
            other.set_megapixels(7)
            with pytest.raises(Busy):
                ticket.set_megapixels(4)
        assert runtime.mpx == 3
    assert runtime.mpx == 0


def test_work_that_outlives_its_place_weighs_nothing() -> None:
    runtime = admission()
    with runtime.ticket() as ticket:
        ticket.set_megapixels(2)
    ticket.set_megapixels(5)
    assert runtime.mpx == 0


def test_fractions_of_megapixels_add_up_to_nothing_in_an_empty_house() -> None:
    runtime = admission(images=100)
    with ExitStack() as inside:
        for _ in range(70):
            inside.enter_context(runtime.ticket()).set_megapixels(0.1)
    assert runtime.mpx == 0


def test_working_bytes_are_counted_like_megapixels_and_let_go() -> None:
    runtime = Admission(max_images=4, max_mpx=10, max_bytes=1000, max_working_bytes=100)
    with runtime.ticket() as alone:
        alone.set_working_bytes(400)
        with runtime.ticket() as second:
            with pytest.raises(Busy, match="do not fit") as refused:
                second.set_working_bytes(1)
            assert refused.value.reason == "memory_full"
            second.set_working_bytes(0)
            alone.set_working_bytes(60)
            second.set_working_bytes(40)
            with pytest.raises(Busy):
                second.set_working_bytes(41)
            assert runtime.working_bytes == 100
        assert runtime.working_bytes == 60
    assert runtime.working_bytes == 0
    alone.set_working_bytes(5)
    assert runtime.working_bytes == 0


def test_a_key_fills_its_share_and_no_more() -> None:
    runtime = admission(images=4, each=2)
    with runtime.ticket("a"), runtime.ticket("a"):
        with pytest.raises(TooMany, match="2 images of 'a'") as refused, runtime.ticket("a"):
            pass
        assert refused.value.reason == "key_full"
        with runtime.ticket("b"), runtime.ticket("b"):
            with pytest.raises(TooMany), runtime.ticket("b"):  # its own share, although the house is full too
                pass
            with pytest.raises(Busy) as full, runtime.ticket("c"):
                pass
            assert not isinstance(full.value, TooMany)
            assert full.value.reason == "queue_full"
        with runtime.ticket("b"):
            pass
    with runtime.ticket("a"), runtime.ticket("a"):
        assert len(runtime) == 2


def test_images_without_a_key_have_the_bound_of_the_house_alone() -> None:
    runtime = admission(images=4, each=1)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(runtime.ticket())
        with pytest.raises(Busy) as full, runtime.ticket():
            pass
    assert full.value.reason == "queue_full"


def test_a_key_is_told_when_its_own_images_will_be_done() -> None:
    clock = Clock()
    runtime = admission(clock, images=100, each=3)
    for _ in range(3):
        with runtime.ticket("quick"):
            clock.now += 0.1
    slow = [runtime.ticket("slow") for _ in range(4)]
    for ticket in slow[:3]:
        ticket.__enter__()
    with pytest.raises(TooMany) as unmeasured, runtime.ticket("slow"):
        pass
    assert unmeasured.value.retry_after_s == 1  # at the pace of the house: 3 × 0.1 s
    clock.now += 5
    slow[0].__exit__(None, None, None)
    with slow[3], pytest.raises(TooMany) as measured, runtime.ticket("slow"):
        pass
    assert measured.value.retry_after_s == 15
    for ticket in slow[1:3]:
        ticket.__exit__(None, None, None)
    assert len(runtime) == 0


def test_nothing_is_kept_of_keys_with_no_image_inside() -> None:
    runtime = admission(images=4, each=2)
    for i in range(1000):
        with runtime.ticket(f"key {i}"), runtime.ticket(f"other {i}"):
            pass
    assert not runtime._keys


def test_bytes_are_counted_and_let_go() -> None:
    runtime = admission(size=1000)
    with runtime.hold() as first, runtime.hold() as second:
        first(600)
        with pytest.raises(Busy, match="uploads"):
            second(500)
        second(400)
    assert runtime.bytes == 0


def test_retry_after_is_what_is_inside_times_the_measured_pace() -> None:
    clock = Clock()
    runtime = admission(clock, images=100)
    assert runtime.retry_after_s() == 1
    with ExitStack() as inside:
        for _ in range(3):
            with runtime.ticket():
                clock.now += 2.0  # two seconds an image
            clock.now += 500  # an idle house says nothing about its pace
        for _ in range(8):
            inside.enter_context(runtime.ticket())
        assert runtime.retry_after_s() == 16
        for _ in range(80):
            inside.enter_context(runtime.ticket())
        assert runtime.retry_after_s() == 60


def test_the_oldest_is_the_first_who_is_still_inside() -> None:
    clock = Clock()
    runtime = admission(clock)
    assert runtime.oldest_s() == 0
    with runtime.ticket():
        clock.now += 3
        with runtime.ticket():
            assert runtime.oldest_s() == 3


def test_flooded_only_after_ten_seconds_near_the_bound() -> None:
    clock = Clock()
    runtime = admission(clock, images=4)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(runtime.ticket())
        assert not runtime.flooded()
        clock.now += 11
        assert runtime.flooded()
    assert not runtime.flooded()


def test_a_slow_lone_image_does_not_set_the_pace() -> None:
    clock = Clock()
    runtime = admission(clock, images=100)
    with runtime.ticket():
        clock.now += 30.0  # a large photo with everything asked for
    assert runtime.retry_after_s() == 1
    with ExitStack() as inside:
        for _ in range(40):
            inside.enter_context(runtime.ticket())
        with runtime.ticket():
            clock.now += 0.1
        with runtime.ticket():
            clock.now += 0.1
        assert runtime.retry_after_s() == 4


def test_who_asked_lately_is_known_and_jobs_ask_nothing() -> None:
    now = 100.0
    admission = Admission(max_images=4, max_mpx=10, max_bytes=1000, clock=lambda: now)
    with admission.ticket(BACKGROUND):
        assert not admission.asked_within(1.0)
    with admission.ticket("ann"):
        now = 105.0
        assert not admission.asked_within(1.0)
    assert admission.asked_within(1.0)
    now = 106.0
    assert not admission.asked_within(1.0)


def shared(folder: Path, clock: Clock, **bounds: Any) -> list[Admission]:
    given = {"max_images": 4, "max_mpx": 10, "max_bytes": 100, **bounds}
    return [Admission(**given, clock=clock, fleet=fleet) for fleet in fleets(folder)]


def test_what_may_be_inside_is_of_all_workers_together(tmp_path: Path) -> None:
    one, two = shared(tmp_path, Clock(), max_key_images=3)
    with ExitStack() as inside:
        for admission, key in [(one, "a"), (one, "a"), (two, "a")]:
            inside.enter_context(admission.ticket(key))
        for admission in (one, two):
            with pytest.raises(TooMany, match="3 images of 'a' are in the queue"), admission.ticket("a"):
                pass
        with two.ticket("b"):
            for admission in (one, two):
                with pytest.raises(Busy, match="4 images are in the queue, as many as fit"), admission.ticket("c"):
                    pass
        with one.ticket("c"):
            pass
    assert len(one) == len(two) == 0
    with ExitStack() as inside:
        for _ in range(3):
            inside.enter_context(two.ticket("a"))


def test_megapixels_and_bytes_are_of_all_workers_together(tmp_path: Path) -> None:
    one, two = shared(tmp_path, Clock(), max_working_bytes=50)
    with one.ticket() as here, two.ticket() as there:
        here.set_megapixels(8)
        with pytest.raises(Busy, match="8 megapixels are in the queue"):
            there.set_megapixels(3)
        there.set_megapixels(2)
        here.set_working_bytes(40)
        with pytest.raises(Busy, match="do not fit beside them"):
            there.set_working_bytes(11)
        here.set_megapixels(0.5)
        there.set_megapixels(9.5)
    with one.ticket() as alone:
        alone.set_megapixels(11)  # alone, any image fits
    with one.hold() as hold, two.hold() as other:
        hold(60)
        with pytest.raises(Busy, match="uploads"):
            other(41)
        other(40)


def test_when_to_come_back_is_reckoned_with_the_pace_of_all(tmp_path: Path) -> None:
    clock = Clock()
    one, two = shared(tmp_path, clock, max_images=100)
    for worker in (one, two):  # each sends off an image every two seconds
        tickets = [ExitStack() for _ in range(3)]
        for ticket in tickets:
            ticket.enter_context(worker.ticket())
        for ticket in tickets:
            clock.now += 2
            ticket.close()
    with ExitStack() as inside:
        for _ in range(6):
            inside.enter_context(two.ticket())
        assert one.retry_after_s() == two.retry_after_s() == 6  # of six images, one each second
    assert two.asked_within(1)
    assert one.asked_within(1)
    clock.now += 2
    assert not one.asked_within(1)
