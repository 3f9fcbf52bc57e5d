"""What a server counted of the canary outlives it, counts once, and never for another canary."""

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from service.api import canary_counts
from service.api.canary_counts import Keeping
from service.fleet.fleet import Fleet
from service.metrics import Metrics
from service.repository.canary import Canary, Compared, Trial
from service.repository.registry import Registry
from service.settings import Settings
from tests.service.fleet.pair import fleets


def counting(tmp_path: Path, run: int = 0) -> Canary:
    metrics = Metrics()
    made = Canary(Registry(Settings(state=tmp_path), metrics), metrics, 5)
    made.trial = Trial("a@1", "b@2", np.zeros((2, 3), np.int64), run=run)
    return made


def see(canary: Canary) -> None:
    assert canary.trial is not None
    canary.trial.answered[1] += 1
    canary.trial.add(Compared(np.array([[1, 2, 3], [4, 5, 6]]), (0.5, None), (3.0, 4.0)))


def test_others_find_what_one_has_counted_of_this_run(tmp_path: Path) -> None:
    one, two = fleets(tmp_path, 2)
    canary = counting(tmp_path, run=3)
    keeping = Keeping(one, canary)
    assert canary_counts.kept(two, one.member, 3) is None
    for _ in range(2):
        see(canary)
        asyncio.run(keeping.keep())
    found = canary_counts.kept(two, one.member, 3)
    assert found is not None
    assert canary.trial is not None
    assert found.as_json() == canary.trial.as_json()
    assert canary_counts.kept(two, one.member, 4) is None
    assert canary_counts.kept(two, two.member, 3) is None


def test_it_is_written_where_something_changed_and_a_failure_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = fleets(tmp_path, 1)
    canary, written = counting(tmp_path), []
    keeping = Keeping(one, canary)

    def full(what: str, value: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(one, "keep", full)
        asyncio.run(keeping.keep())
        asyncio.run(keeping.keep())
    assert caplog.text.count("no space") == 1
    monkeypatch.setattr(one, "keep", lambda what, value: written.append(value["compared"]))
    for _ in range(3):
        asyncio.run(keeping.keep())
    see(canary)
    asyncio.run(keeping.keep())
    assert written == [0, 1]


def test_a_server_that_is_alone_keeps_nothing(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(Keeping(Fleet(), counting(tmp_path)).run(), 5))
