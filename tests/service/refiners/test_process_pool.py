"""pydensecrf's processes: what they answer, and what becomes of an image whose process dies, hangs or is orphaned."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.crf import reference
from models.crf.params import CRFError, CRFParams
from models.deadline import DeadlineExceeded
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.refine import refine
from service.refiners import process_pool
from service.refiners.process_pool import ProcessLost, ProcessPoolRefiner
from service.settings import Settings, SettingsError
from tests.service.crf_work import number

ROOT = Path(__file__).parents[3]
FITTED = Fit(np.zeros((8, 8, 3), np.uint8), (8, 8))


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessPoolRefiner]:
    processes = ProcessPoolRefiner(2, number)
    yield processes
    processes.close()


def asked(processes: ProcessPoolRefiner, i: int = 0, left_s: float = 20, **told: Any) -> tuple[int, int]:
    """Which process answered, and with which number."""
    scores = np.full((3, 1, 1), i, np.float32)
    who, what = processes.refine(scores, None, FITTED, deadline=time.monotonic() + left_s, **told)
    return int(who), int(what)


def gone(process: int, within_s: float = 5) -> bool:
    """Whether it ends; one that its parent has not looked after counts as ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_each_image_gets_its_own_answer_side_by_side(two: ProcessPoolRefiner) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda i: asked(two, i, busy_s=0.05), range(8)))
    assert [what for _, what in answers] == list(range(8))
    processes = {who for who, _ in answers}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_what_the_work_raises_is_raised_here_and_the_process_goes_on(two: ProcessPoolRefiner) -> None:
    before, _ = asked(two)
    with pytest.raises(CRFError, match="too small"):
        asked(two, refuse="deviations too small")
    with pytest.raises(DeadlineExceeded):
        asked(two, left_s=0.1, busy_s=10)
    with pytest.raises(DeadlineExceeded):  # its turn came too late
        asked(two, left_s=-1)
    assert asked(two)[0] == before


def test_a_process_that_died_idle_is_replaced_unnoticed(
    two: ProcessPoolRefiner, caplog: pytest.LogCaptureFixture
) -> None:
    before, _ = asked(two)
    os.kill(before, signal.SIGKILL)
    after, what = asked(two, 7)
    assert what == 7
    assert after != before
    assert "another one takes its place" in caplog.text


def test_an_image_whose_process_dies_is_tried_once_more(two: ProcessPoolRefiner, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    deadly.touch()
    assert asked(two, 5, die=str(deadly))[1] == 5
    with pytest.raises(ProcessLost, match="-9"):
        asked(two, dies=True)
    with ThreadPoolExecutor(2) as threads:  # both are there again
        assert len({who for who, _ in threads.map(lambda i: asked(two, i, busy_s=0.3), range(2))}) == 2


@pytest.mark.parametrize("how", ["exits", "unreadable"])
def test_what_cannot_be_answered_costs_a_process_and_nobody_elses_image(two: ProcessPoolRefiner, how: str) -> None:
    with pytest.raises(ProcessLost):
        asked(two, 4, **{how: True})
    with ThreadPoolExecutor(2) as threads:
        assert [what for _, what in threads.map(lambda i: asked(two, i, busy_s=0.1), range(1, 5))] == [1, 2, 3, 4]


def test_a_process_that_does_not_come_back_is_ended(two: ProcessPoolRefiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "GRACE_S", 0.1)
    before, _ = asked(two)
    with pytest.raises(DeadlineExceeded):
        asked(two, left_s=0.1, deaf_s=60)
    assert gone(before)
    assert asked(two, 3)[1] == 3


def test_nor_does_one_that_does_not_even_read(two: ProcessPoolRefiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "GRACE_S", 0.1)
    before, _ = asked(two)
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        two.refine(np.zeros((2, 512, 512), np.float32), None, FITTED, deadline=time.monotonic() + 0.3)  # 2 MB
    assert gone(before)
    assert asked(two, 3)[1] == 3


def test_ctrl_c_is_the_servers(two: ProcessPoolRefiner) -> None:
    before, _ = asked(two)
    os.kill(before, signal.SIGINT)
    assert asked(two, 4) == (before, 4)


def test_closed_they_are_gone_with_what_they_do() -> None:
    processes = ProcessPoolRefiner(1, number)
    who, _ = asked(processes)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asked, processes, busy_s=20)
        time.sleep(0.2)
        processes.close()
        with pytest.raises(ProcessLost):
            running.result(5)
    assert gone(who)
    with pytest.raises(ProcessLost):
        asked(processes)


_PARENT = """
import sys, threading, time
import numpy as np
from models.manifest import CodeSpec
from models.preprocess import Fit
from service.refiners.process_pool import ProcessPoolRefiner
from tests.service.crf_work import number
processes, photo = ProcessPoolRefiner(2, number), Fit(np.zeros((8, 8, 3), np.uint8), (8, 8))
def ask(busy_s):
    return processes.refine(np.zeros((3, 1, 1)), None, photo, deadline=time.monotonic() + 20, busy_s=busy_s)
idle = int(ask(0)[0])
threading.Thread(target=lambda: ask(1), daemon=True).start()
time.sleep(0.3)
other = threading.Thread(target=lambda: print(idle, int(ask(0)[0]), flush=True))
other.start()
time.sleep(30)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks the kernel of Linux who is there")
def test_a_server_that_is_killed_leaves_nobody() -> None:
    """One of the two is busy for a second when it happens."""
    with subprocess.Popen([sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = [int(word) for word in parent.stdout.readline().split()]
        assert len(set(processes)) == 2
        assert not any(gone(process, 0.1) for process in processes)
        parent.kill()
        assert all(gone(process) for process in processes)


def test_one_that_never_starts_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "START_S", 0.0)
    with pytest.raises(ProcessLost, match="does not answer"):
        ProcessPoolRefiner(1, number)


def test_ours_needs_no_processes_and_pydensecrf_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProcessPoolRefiner.open(Settings(), 2) is None
    monkeypatch.setattr(reference, "missing", lambda: "it is not installed: make oracle")
    with pytest.raises(SettingsError, match=r"TESSERA_CRF=pydensecrf: .*make oracle"):
        ProcessPoolRefiner.open(Settings(crf="pydensecrf"), 2)


@pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")
def test_they_answer_as_models_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tessera")
    processes = ProcessPoolRefiner.open(Settings(crf="pydensecrf"), 1)
    assert processes is not None
    assert "pydensecrf is the CRF, in processes: 1" in caplog.text
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((5, 4, 6)).astype(np.float32)
    fitted = Fit(rng.integers(0, 256, (32, 48, 3), np.uint8), (64, 96))
    spec = CodeSpec(dim=1, stride=8, assignment="dot", temperature=3.0)
    options: dict[str, Any] = {"spec": spec, "params": CRFParams(iterations=4)}
    labels = processes.refine(scores, None, fitted, deadline=time.monotonic() + 20, **options)
    np.testing.assert_array_equal(labels, refine(scores, None, fitted, method="pydensecrf", **options))
    processes.close()
