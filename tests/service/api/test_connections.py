"""How many connections there may be, which goes first, and what they may hold."""

import math
import time
from typing import Any

import pytest

from service.api.connections import EVADED, STALLED_S, Connections
from service.metrics import Metrics
from service.settings import Settings


class Double:
    """A connection that only notes what is done with it."""

    address: str | None = None
    deadline = 0.0
    over = False
    fresh = True

    def __init__(self, house: Connections, address: str | None = "10.0.0.1", unread: int = 0) -> None:
        self.house, self.unread = house, unread
        self.ended: list[str] = []
        self.expired = 0
        house.enter(self, address)

    def expire(self, now: float) -> None:
        self.expired += 1
        self.end("idle")

    def end(self, reason: str) -> None:
        self.ended.append(reason)
        self.house.leave(self)


@pytest.fixture
def house() -> Any:
    return make()


def make(**settings: Any) -> Connections:
    return Connections(Settings(**{"max_connections": 6, "max_client_connections": 3, **settings}), Metrics())


def test_of_one_address_the_one_that_has_rested_longest_goes_first(house: Connections) -> None:
    first, second, third = (Double(house) for _ in range(3))
    house.work(first)
    house.rest(first, 75)  # it was asked, so it is the last of them now
    fourth = Double(house)
    assert second.ended == ["connections"]
    assert not any(one.ended or one.over for one in (first, third, fourth))
    assert len(house) == 3


def test_another_address_is_not_touched_by_a_flood(house: Connections) -> None:
    other = Double(house, "10.0.0.2")
    flood = [Double(house) for _ in range(50)]
    assert not other.ended
    assert sum(not one.ended for one in flood) == 3


def test_in_all_the_one_that_has_rested_longest_goes_first(house: Connections) -> None:
    rested = [Double(house, f"10.0.0.{i}") for i in range(6)]
    Double(house, "10.0.0.9")
    assert [bool(one.ended) for one in rested] == [True] + [False] * 5


def test_who_comes_while_none_rests_may_ask_for_probes_only(house: Connections) -> None:
    busy = [Double(house) for _ in range(3)]
    for one in busy:
        house.work(one)
    late = Double(house)
    assert late.over
    assert not any(one.ended for one in busy)
    assert not Double(house, "10.0.0.2").over


def test_those_beyond_the_limit_are_few(house: Connections) -> None:
    for one in [Double(house) for _ in range(3)]:
        house.work(one)
    late = [Double(house) for _ in range(EVADED + 5)]
    assert [bool(one.ended) for one in late] == [True] * 5 + [False] * EVADED


def test_one_may_be_the_most(house: Connections) -> None:
    house = make(max_client_connections=1)
    one, two = Double(house), Double(house)
    assert one.ended
    two.end("idle")
    assert len(house) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("a socket's path", "a socket's path", True),
    ],
)
def test_what_one_client_is(one: str, other: str, same: bool) -> None:
    house = make()
    assert (Double(house, one).address == Double(house, other).address) is same


def test_an_address_that_stands_for_many_is_not_counted() -> None:
    house = Connections(
        Settings(max_client_connections=1), Metrics(), counted=lambda address: not address.startswith("10.")
    )
    assert not any(one.ended or one.over for one in [Double(house) for _ in range(9)])
    assert Double(house, "11.0.0.1").address == "11.0.0.1"


def test_a_look_ends_what_is_too_late(house: Connections) -> None:
    slow, quick = Double(house), Double(house)
    house.work(quick)
    assert quick.deadline == math.inf
    house.look(time.monotonic() + 11)
    assert (slow.expired, quick.expired) == (1, 0)


def test_of_answers_that_nobody_reads_the_longest_waiting_goes() -> None:
    house = make(max_unread_bytes=2**16)
    first, second = (Double(house, unread=2**16) for _ in range(2))
    house.stall(first)
    house.stall(second)
    house.look(time.monotonic())
    assert not first.ended  # what was written a moment ago is about to leave
    house.look(time.monotonic() + STALLED_S)
    assert first.ended == ["unread"]
    assert not second.ended
    house.flow(second)
    assert house.unread == 0


def test_when_the_server_ends_nobody_rests_for_long(house: Connections) -> None:
    kept, new = Double(house), Double(house)
    house.work(kept)
    house.rest(kept, 75)
    old = Double(house)
    old.deadline -= 8  # as one that began eight seconds ago
    house.drain()
    now = time.monotonic()
    assert kept.deadline <= now + 1
    assert old.deadline <= now + 1
    assert now + 4 < new.deadline <= now + 5  # its first request may be on its way
    assert now + 4 < Double(house, "10.0.0.2").deadline <= now + 5.1
    house.rest(kept, 75)
    assert kept.deadline <= time.monotonic() + 1
    house.end()
    assert kept.ended == new.ended == ["drain"]


def test_memory_goes_back_once_when_all_rest(house: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr("models.hardware.release_memory", lambda: given.append(1))
    one, now = Double(house), time.monotonic()
    one.deadline = math.inf
    house.look(now)
    house.work(one)
    house.look(now + 1)
    house.rest(one, 75)
    for second in range(2, 12):
        house.look(now + second)
    assert len(given) == 1
