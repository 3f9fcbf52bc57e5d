"""A worker as Ray would make it, in this process: what it tells of a batch, and of what is wrong where it runs."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import hardware
from models.bundle import Bundle
from models.errors import TesseraError, UsageError
from models.io.encode import encode
from service.inference.options import Options
from service.offline.bucket_outputs import BucketOutputs
from service.offline.engine import generous
from service.offline.outputs import DiskFull, Outputs
from service.offline.ray_worker import Expected, Numbered, Report, Worker
from service.offline.runner import Todo
from service.offline.sources import find
from service.offline.work import Work
from service.settings import Settings
from tests.service.offline.s3_server import s3_server
from tests.tiny import bands


@pytest.fixture
def work(tiny_bundle: Path, tmp_path: Path) -> Iterator[Work]:
    settings = generous(Settings(bundles=(tiny_bundle,), state=tmp_path / "state", threads=1, engine="onnxruntime"))
    (tmp_path / "out").mkdir()
    outputs = Outputs(tmp_path / "out", ["png"])
    outputs.begin()
    yield Work(Options(), ("png",), settings, outputs)
    hardware.share_cores(float("inf"))


@pytest.fixture
def expected(tiny_bundle: Path) -> Expected:
    return Expected(1, Bundle.load(tiny_bundle).digest, 0)


def images(folder: Path, count: int) -> list[tuple[int, Todo]]:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(bands(40 + i), "png"))
    (folder / "broken.png").write_bytes(b"no image")
    with find([str(folder)]) as found:
        return [(10 + i, Todo(item, item.name.removesuffix(".png"))) for i, item in enumerate(found.items)]


def reports(worker: Worker, numbered: list[tuple[int, Todo]]) -> list[Report]:
    todo = [Numbered(*one) for one in numbered]
    return [report for made in worker({"todo": todo}) for report in made["told"]]


def test_a_batch_is_told_of_image_by_image(work: Work, expected: Expected, tmp_path: Path) -> None:
    worker = Worker(pickle.loads(pickle.dumps(work)), expected)
    assert hardware.cores() == 1
    first, *others = reports(worker, images(tmp_path / "in", 4))
    assert first == Report()  # it is there
    ended = {number: failed for report in others for number, failed, _ in report.ended}
    assert ended.keys() == {10, 11, 12, 13, 14}
    assert [number for number, failed in ended.items() if failed] == [14]
    assert "these bytes are not an image" in str(ended[14])
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [f"{i}.png" for i in range(4)]
    worker.close()


def test_what_is_wrong_on_a_node_ends_the_run_with_a_sentence(work: Work, expected: Expected, tmp_path: Path) -> None:
    numbered = images(tmp_path / "in", 1)
    elsewhere = Work(work.options, work.formats, work.settings, Outputs(tmp_path / "other", ["png"]))
    nowhere = Work(work.options, work.formats, work.settings.model_copy(update={"bundles": (tmp_path,)}), work.outputs)
    for given, found, sentence in (
        (elsewhere, expected, "is another place there than where the command was typed"),
        (work, expected._replace(digest="0"), "holds another bundle there"),
        (work, expected._replace(said=1), "set TESSERA_STATE to a folder that all nodes share"),
        (nowhere, expected, "manifest.json"),
    ):
        worker = Worker(given, found)
        (report,) = reports(worker, numbered)
        assert isinstance(report.broken, TesseraError)
        assert sentence in str(report.broken)
        assert str(report.broken).startswith("on ")
        worker.close()


def test_a_full_disk_is_told_as_one(
    work: Work, expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Outputs) -> None:
        raise DiskFull("the disk is full")

    worker = Worker(work, expected)
    monkeypatch.setattr(Outputs, "check_room", refuse)
    *_, last = reports(worker, images(tmp_path / "in", 2))
    assert isinstance(last.broken, DiskFull)
    assert not isinstance(last.broken, UsageError)
    worker.close()


@pytest.mark.slow
def test_a_worker_reads_and_writes_buckets(work: Work, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    with s3_server() as (objects, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        objects.update({f"in/photos/{i}.png": encode(bands(40 + i), "png") for i in range(3)})
        outputs = BucketOutputs("s3://out/labels", ["png"])
        outputs.begin()
        with find(["s3://in/photos"]) as found:
            numbered = [(i, Todo(item, item.name.removesuffix(".png"))) for i, item in enumerate(found.items)]
        there = Work(work.options, work.formats, work.settings, outputs)
        worker = Worker(pickle.loads(pickle.dumps(there)), expected)
        ended = [one for report in reports(worker, numbered) for one in report.ended]
        assert sorted(ended) == [(i, None, ()) for i in range(3)]
        assert sorted(name for name in objects if name.endswith(".png") and name.startswith("out/labels/")) == [
            f"out/labels/{i}.png" for i in range(3)
        ]
        outputs.end()
        (report,) = reports(other := Worker(there, expected), numbered)
        assert "s3://out/labels is another place there" in str(report.broken)
        worker.close()
        other.close()
