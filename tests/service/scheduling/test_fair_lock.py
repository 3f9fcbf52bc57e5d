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


def test_whoever_hangs_is_expelled_and_hurts_nobody_when_it_comes_back() -> None:
    lock, go, order = FairLock(), threading.Event(), []
    inside = threading.Event()

    def hangs() -> None:
        with lock:
            inside.set()
            assert go.wait(10)
            order.append("came back")

    def waits(name: str) -> None:
        with lock:
            order.append(name)

    hung = threading.Thread(target=hangs)
    hung.start()
    assert inside.wait(5)
    waiting = threading.Thread(target=waits, args=("next",))
    waiting.start()
    assert hung.ident is not None
    deadline = time.monotonic() + 5
    while not lock._waiting:
        assert time.monotonic() < deadline
    assert lock.expel(hung.ident)
    assert not lock.expel(hung.ident)
    waiting.join(5)
    with lock:  # it is held again when the expelled one leaves
        go.set()
        hung.join(5)
        waiting = threading.Thread(target=waits, args=("after",))
        waiting.start()
        waiting.join(0.05)
        assert order == ["next", "came back"]
    waiting.join(5)
    assert order == ["next", "came back", "after"]
