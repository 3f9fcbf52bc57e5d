"""What makes a run of the CRF's server comparison void, and how its rounds are summed up."""

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from benchmarks import crf_server, machine
from benchmarks.crf_server import Round, measured, several, summary
from benchmarks.own_server import ServerError
from tests.benchmarks.test_load import FULL, OK, REQUEST, WARNED, answering


class Counting:
    """A server's counters, for one that misses so many passes of its network; this process stands for it."""

    def __init__(self, port: int, missed: int) -> None:
        self.pid, self.port, self.answered, self.missed = os.getpid(), port, 0, missed

    def counters(self) -> dict[str, float]:
        return {"tessera_images_total": self.answered, "tessera_batch_images_sum": self.answered - self.missed}


def run(answers: list[bytes], log: Path, missed: int = 0) -> Round:
    async def whole() -> Round:
        def told() -> bytes:
            server.answered += 1
            return next(turn)

        turn = itertools.chain(answers, itertools.cycle([OK]))
        async with answering(iter(told, None)) as port:
            server = Counting(port, missed)
            return await measured(server, log, [REQUEST], clients=2, secs=0.3)

    return asyncio.run(whole())


def test_a_sound_run_has_its_figures(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ready")
    found = run([], log)
    assert found.images_per_s > 10
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.rss_mb > 10


@pytest.mark.parametrize(
    ("answers", "missed", "said", "why"),
    [
        ([OK, FULL], 0, "", "503"),
        ([OK, WARNED], 0, "", "1 answers with a warning"),
        ([], 1, "", "without its own pass"),
        ([], 0, "WARNING a process has died; ours refines this image", "died"),
    ],
)
def test_what_makes_a_run_void(answers: list[bytes], missed: int, said: str, why: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    with pytest.raises(ServerError, match=f"void.*{why}"):
        run(answers, log, missed)


def test_the_ratio_is_that_of_the_medians_and_its_range_that_of_the_rounds() -> None:
    ours, theirs = ([Round(rate, 1.0, 2.0, 3.0, 4.0) for rate in rates] for rates in ([9, 10, 12], [6, 5, 4]))
    found = summary({"dense": ours, "pydensecrf": theirs})
    assert found["ratio"] == 2.0
    assert found["ratio_range"] == [1.5, 3.0]
    assert found["rounds"] == 3
    assert "**2.00** [1.50–3.00]" in crf_server.row(4, found)


def test_photos_are_different_files(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b"1"), ("b.JPEG", b"2"), ("c.png", b"1"), ("d.txt", b"3")):
        (tmp_path / name).write_bytes(content)
    assert several(tmp_path, 2) == [b"1", b"2"]
    with pytest.raises(ServerError, match="2 different photos"):
        several(tmp_path, 3)


def test_seconds_of_the_processor_are_counted_for_a_process_and_those_below() -> None:
    before, until = machine.cpu_s(os.getpid()), time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert 0.2 < machine.cpu_s(os.getpid()) - before < 5
