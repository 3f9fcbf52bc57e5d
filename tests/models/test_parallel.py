"""Jobs dealt out to threads: every one done once, answers in order, errors told when all have ended."""

import threading
from functools import partial

import pytest

from models.parallel import ThreadTeam


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_job_is_done_and_answers_are_in_order(threads: int) -> None:
    with ThreadTeam(threads) as team:
        assert team.run(*(partial(pow, job, 2) for job in range(7))) == [0, 1, 4, 9, 16, 25, 36]
        assert team.map_ranges(lambda add, start, stop: add + stop - start, 1, parts=[0, 4, 10]) == [5, 7]
        assert team.run() == []


def test_shares_cover_everything() -> None:
    with ThreadTeam(3) as team:
        assert team.shares(10, 20) == [10, 13, 16, 20]
        assert team.shares(0, 1) == [0, 0, 0, 1]


def test_an_error_waits_for_the_others() -> None:
    ended = threading.Event()

    def fail() -> None:
        raise ValueError("the first")

    def end() -> None:
        threading.Event().wait(0.05)
        ended.set()

    with ThreadTeam(2) as team, pytest.raises(ValueError, match="first"):
        team.run(fail, end)
    assert ended.is_set()
