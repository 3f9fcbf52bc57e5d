"""What comes of batches whose workers die: tried again, each image alone; no Ray is started."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.errors import TesseraError, UsageError
from service.inference.options import Options
from service.offline import ray_cluster, ray_engine
from service.offline.outputs import DiskFull, Outputs
from service.offline.ray_cluster import Pool, Wanted
from service.offline.ray_engine import OnRay
from service.offline.ray_worker import Report
from service.offline.runner import Ended, Todo
from service.offline.sources import Finder
from service.offline.work import Listener, Work
from service.settings import Settings

Batch = Sequence[tuple[int, Todo]]


class Cluster:
    """In place of Ray: `worker` is given every batch, and tells of it or dies.

    rounds  how many images each batch of each round had
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, worker: Callable[[Batch], Iterator[Report]]) -> None:
        self.rounds: list[list[int]] = []

        @contextmanager
        def connected(address: str) -> Iterator[Any]:
            yield SimpleNamespace(available_resources=lambda: {"CPU": 1.0})

        def dataset(ray: Any, pool: Pool, turn: Any, given: Any, numbered: Batch) -> Any:
            batches = [numbered[i : i + turn.batch] for i in range(0, len(numbered), turn.batch)]
            self.rounds.append([len(batch) for batch in batches])

            def iter_batches(**how: Any) -> Iterator[Any]:
                for batch in batches:
                    for report in worker(batch):
                        yield {"told": [report]}

            return SimpleNamespace(iter_batches=iter_batches)

        monkeypatch.setattr(ray_cluster, "connected", connected)
        monkeypatch.setattr(ray_cluster, "fitting", lambda *_, **how: Pool(1, 1, 2, 0))
        monkeypatch.setattr(ray_engine, "_dataset", dataset)


def run(folder: Path, count: int, *, stop_at: int = -1) -> tuple[list[Ended], list[str]]:
    """What was told of so many images, and said; stopped when so many were."""
    for i in range(count):
        (folder / f"{i:03}.png").touch()
    finder = Finder()
    finder.folder(folder)
    todo = [Todo(item, item.name) for item in finder.found().items]
    work = Work(Options(), ("png",), Settings(), Outputs(folder / "out", ["png"]))
    model: Any = SimpleNamespace(bundle=SimpleNamespace(digest="d"), said=0)
    ended: list[Ended] = []
    said: list[str] = []
    engine = OnRay(said.append, Wanted())

    def end(one: Ended) -> None:
        ended.append(one)
        if len(ended) == stop_at:
            said.append(engine.stop())

    listener = Listener(lambda: None, end, lambda part: None)
    asyncio.run(engine.run(work, model, todo, listener))
    assert not [thread for thread in threading.enumerate() if thread.name in ("ray", "reports")]
    return ended, said


def done(batch: Batch) -> Report:
    return Report([(number, None, ()) for number, _ in batch])


def test_each_image_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(batch: Batch) -> Iterator[Report]:
        yield Report()
        yield done(batch)
        yield done(batch[:1])  # once more

    cluster = Cluster(monkeypatch, worker)
    ended, said = run(tmp_path, 40)
    assert [one.item.name for one in ended] == [f"{i:03}.png" for i in range(40)]
    assert cluster.rounds == [[5] * 8]
    assert said == ["starting a Ray cluster on this machine", "workers: 1, each with 2 CPUs"]


def test_what_a_worker_took_along_is_tried_alone_and_what_kills_it_there_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def worker(batch: Batch) -> Iterator[Report]:
        nonlocal tries
        yield Report()
        for one in batch:
            tries += one[0] == 17
            if one[0] == 17 or (one[0] == 3 and len(batch) > 1):
                return
            yield done([one])

    cluster = Cluster(monkeypatch, worker)
    ended, said = run(tmp_path, 40)
    failed = {one.item.name: one.failed for one in ended if one.failed}
    assert failed == {"017.png": "the worker process that had it alone died, 2 times"}
    assert sorted(one.item.name for one in ended) == [f"{i:03}.png" for i in range(40)]
    assert cluster.rounds == [[5] * 8, [1] * 5, [1]]
    assert tries == 3
    assert said[2] == "a worker died with up to 5 images under way: they are tried again, each alone"


def test_stopped_it_drops_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(batch: Batch) -> Iterator[Report]:
        yield done(batch[:1])
        assert ray_engine._Ender.told.wait(5)
        ray_engine._Ender().on_execution_step(None)  # as Ray Data's loop does
        yield done(batch)

    Cluster(monkeypatch, worker)
    ended, said = run(tmp_path, 40, stop_at=1)
    assert [one.item.name for one in ended] == ["000.png"]
    assert said[-1].startswith("what is under way is dropped, and done the next time")


@pytest.mark.parametrize("error", [DiskFull("the disk is full"), UsageError("on a: no such folder")])
def test_what_is_wrong_with_a_worker_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: TesseraError
) -> None:
    def worker(batch: Batch) -> Iterator[Report]:
        yield Report(broken=error)

    Cluster(monkeypatch, worker)
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path, 3)


def test_what_ray_says_when_it_gives_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(batch: Batch) -> Iterator[Report]:
        raise RuntimeError("the cluster\n is gone")
        yield

    Cluster(monkeypatch, worker)
    with pytest.raises(TesseraError, match="Ray gave up: the cluster is gone"):
        run(tmp_path, 3)


def test_a_cluster_whose_cpus_others_have_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worker(batch: Batch) -> Iterator[Report]:
        ray_engine._Ender.told.wait(5)
        yield Report()

    monkeypatch.setattr(ray_engine, "_START_S", 0.05)
    monkeypatch.setattr(ray_engine, "_LOOK_EVERY_S", 0.01)
    Cluster(monkeypatch, worker)
    with pytest.raises(UsageError, match=r"no worker has started .* 1 CPUs and 0 GPUs of the cluster are free"):
        run(tmp_path, 3)
