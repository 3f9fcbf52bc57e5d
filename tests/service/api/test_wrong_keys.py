"""Who guesses keys waits, and learns nothing while it does; nobody else waits."""

from pathlib import Path

import pytest

from service.api.auth import ApiKeys
from service.api.problems import status_of
from service.api.wrong_keys import ATTEMPTS, EACH_S, WrongKeys
from service.errors import KeyMissing, TooManyWrongKeys
from service.fleet import counts
from service.settings import Settings
from tests.service.fakes import Clock
from tests.service.fleet.pair import fleets

HERE, THERE = "198.51.100.7", "198.51.100.8"


def guess(wrong: WrongKeys, address: str, times: int = 1) -> None:
    for i in range(times):
        wrong.judge(address, b"%d" % i, known=False)


def test_after_so_many_an_address_waits_and_time_forgives() -> None:
    clock = Clock()
    wrong = WrongKeys(clock)
    guess(wrong, HERE, ATTEMPTS)
    with pytest.raises(TooManyWrongKeys) as refused:
        guess(wrong, HERE)
    assert status_of(refused.value) == 429
    assert refused.value.retry_after_s == EACH_S
    guess(wrong, THERE)
    clock.now += refused.value.retry_after_s
    guess(wrong, HERE)  # as it was told, and once
    with pytest.raises(TooManyWrongKeys):
        guess(wrong, HERE)
    clock.now += ATTEMPTS * EACH_S
    guess(wrong, HERE, ATTEMPTS)


def test_a_key_it_came_in_with_goes_on_and_a_right_guess_is_told_nothing() -> None:
    wrong = WrongKeys(Clock())
    wrong.judge(HERE, b"its own", known=True)
    guess(wrong, HERE, ATTEMPTS)
    wrong.judge(HERE, b"its own", known=True)
    told = []
    for digest, known in ((b"a guess", False), (b"somebody's", True)):
        with pytest.raises(TooManyWrongKeys) as refused:
            wrong.judge(HERE, digest, known=known)
        told.append((str(refused.value), refused.value.retry_after_s))
    assert told[0] == told[1]
    wrong.judge(THERE, b"somebody's", known=True)
    with pytest.raises(TooManyWrongKeys):
        wrong.judge(HERE, b"its own", known=False)  # it was its own before the keys were read again


def test_of_ipv6_a_64_is_one_address() -> None:
    wrong = WrongKeys(Clock())
    for i in range(ATTEMPTS):
        guess(wrong, f"2001:db8:0:1::{i:x}")
    with pytest.raises(TooManyWrongKeys):
        guess(wrong, "2001:db8:0:1:ffff::1")
    guess(wrong, "2001:db8:0:2::1")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_REMEMBERED", 8)
    wrong = WrongKeys(Clock())
    for i in range(100):
        guess(wrong, f"10.0.0.{i}")
        wrong.judge(f"10.0.1.{i}", b"own", known=True)
    assert len(wrong._owed) == len(wrong._came_in) == 8


def test_keys_count_what_opens_something_and_nothing_else() -> None:
    keys = ApiKeys(Settings(keys="anna=secret", admin_key="root"))
    for _ in range(3 * ATTEMPTS):
        with pytest.raises(KeyMissing, match="is needed"):
            keys.authenticate({}, HERE)  # no key is no guess
    for _ in range(ATTEMPTS):
        with pytest.raises(KeyMissing, match="not known"):
            keys.authenticate({"x-api-key": "guess"}, HERE)
    for refused in (
        lambda: keys.authenticate({"x-api-key": "g"}, HERE),
        lambda: keys.allow("admin", {"x-api-key": "root"}, HERE),
    ):
        with pytest.raises(TooManyWrongKeys):
            refused()
    assert keys.authenticate({"x-api-key": "secret"}, THERE).name == "anna"
    with pytest.raises(KeyMissing):
        keys.authenticate({}, HERE)


def test_an_open_house_counts_guesses_at_the_admin_key_alone() -> None:
    keys = ApiKeys(Settings(admin_key="root"))
    for _ in range(3 * ATTEMPTS):
        assert keys.authenticate({"x-api-key": "stale"}, HERE).name == ""
    for _ in range(ATTEMPTS):
        with pytest.raises(KeyMissing):
            keys.allow("admin", {"x-api-key": "guess"}, HERE)
    with pytest.raises(TooManyWrongKeys):
        keys.allow("admin", {"x-api-key": "guess"}, HERE)
    assert keys.authenticate({"x-api-key": "stale"}, HERE).name == ""


def test_workers_count_together_and_know_who_came_in(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (WrongKeys(clock, fleet) for fleet in fleets(tmp_path))
    one.judge(HERE, b"its own", known=True)
    for i in range(ATTEMPTS):
        guess((one, two)[i % 2], HERE)
    for worker in (one, two):
        with pytest.raises(TooManyWrongKeys) as refused:
            guess(worker, HERE)
        assert refused.value.retry_after_s == EACH_S
        guess(worker, THERE)
    two.judge(HERE, b"its own", known=True)
    with pytest.raises(TooManyWrongKeys):
        two.judge(HERE, b"another's", known=True)
    clock.now += EACH_S
    guess(two, HERE)
    with pytest.raises(TooManyWrongKeys):
        guess(one, HERE)
