"""A lane: one at a time, and nobody overtakes."""

import threading
import time

import pytest

from service.scheduling.fair_lock import FairLock


def test_one_at_a_time() -> None:
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    with lock:  # it is free again
        pass


def test_who_waits_is_not_overtaken_by_who_was_just_in() -> None:
    lock, order = FairLock(), []

    def other(name: str) -> None:
        with lock:
            order.append(name)

    with lock:
        threads = []
        for i in range(4):
            threads.append(threading.Thread(target=other, args=(f"waited {i}",)))
            threads[-1].start()
            deadline = time.monotonic() + 5
            while len(lock._waiting) <= i:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    with lock:
        order.append("came back")
    for thread in threads:
        thread.join()
    assert order == ["waited 0", "waited 1", "waited 2", "waited 3", "came back"]


def test_a_failure_frees_the_lane() -> None:
    lock = FairLock()
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    with lock:
        pass
