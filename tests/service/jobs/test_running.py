"""Jobs that meet trouble: cancelled, restarted, without room, without their model, beside other jobs and requests."""

import asyncio
import errno
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.inference import Prediction
from models.io.encode import encode
from service.api import middleware
from service.jobs import runner, work
from service.jobs.folders import JobFolder
from service.offline import remote
from tests.service.answers import PNG, problem
from tests.service.fakes import Slow, picture, wait_until
from tests.service.jobs_of import ZIP, begun, kept, packed, result, settled
from tests.service.variants import variant

SHADES = packed({f"{i:02d}.png": encode(picture(10 + i, 16), "png") for i in range(12)})
ADMIN = {"X-API-Key": "open sesame"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for seconds to pass."""
    monkeypatch.setattr(middleware, "LINGER_S", 0.05)
    monkeypatch.setattr(work, "_FLUSH_S", 0.02)
    monkeypatch.setattr(work, "_LATER_S", 0.02)
    monkeypatch.setattr(runner, "_LOOK_S", 0.02)


class Stops(Slow):
    """Waits once it has run so many images: `stop` says how many more."""

    left = -1

    def stop(self, images: int) -> None:
        self.left = images

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        if self.left == 0:
            self.go.clear()
        self.left -= 1
        return super().__call__(pixels, code=code)

    @property
    def stopped(self) -> bool:
        return not self.go.is_set()


def test_a_job_that_is_cancelled_keeps_what_there_is(serve: Any) -> None:
    engine = Stops()
    with serve(lambda bundle: engine, job_images=1) as client:
        engine.stop(3)
        job = begun(client, SHADES)
        wait_until(lambda: engine.stopped)
        assert "running" in problem(client.get(f"/jobs/{job}/result"), 409)
        Timer(0.2, engine.go.set).start()
        assert client.delete(f"/jobs/{job}?keep=true").json()["state"] == "cancelled"
        found = client.get(f"/jobs/{job}").json()
        assert found["progress"]["done"] == len(result(client, job)) == 4
        assert client.delete(f"/jobs/{job}").json()["state"] == "cancelled"
        problem(client.get(f"/jobs/{job}"), 404)
        assert kept(client) == []


def test_what_is_deleted_while_it_runs_is_gone(serve: Any) -> None:
    engine = Stops()
    with serve(lambda bundle: engine) as client:
        engine.stop(2)
        job = begun(client, SHADES)
        wait_until(lambda: engine.stopped)
        assert client.delete(f"/jobs/{job}").status_code == 200
        engine.go.set()
        problem(client.get(f"/jobs/{job}"), 404)
        assert kept(client) == []
        settled(client, begun(client))


def test_a_restart_goes_on_where_it_was_every_image_once(serve: Any) -> None:
    engine, again = Stops(), Stops()
    with serve(lambda bundle: engine, job_images=2) as client:
        engine.stop(5)
        job = begun(client, SHADES, "format=png,npy")
        wait_until(lambda: engine.stopped)
        Timer(0.2, engine.go.set).start()
    assert 5 <= len(engine.ran) - 2 < 12  # two were the golden image and the warm shape
    with serve(lambda bundle: again, job_images=2) as client:
        found = settled(client, job)
        assert found["progress"]["done"] == 12
        assert len(result(client, job)) == 24
    shades = [shade for shade in engine.ran + again.ran if 10 <= shade < 22]
    assert len(shades) >= 12


def test_a_full_disk_pauses_a_job_which_goes_on_by_itself(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    write = JobFolder.write

    def failing(self: JobFolder, path: str, files: Any) -> Any:
        if full and path == "05.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, path, files)

    monkeypatch.setattr(JobFolder, "write", failing)
    with serve() as client:
        found = settled(client, job := begun(client, SHADES), "paused")
        assert "disk is full" in found["note"]
        assert client.get("/readyz").status_code == 200
        full = False
        found = settled(client, job)
        assert (found["progress"]["done"], found["progress"]["failed"], found["note"]) == (12, 0, None)
        assert len(result(client, job)) == 12


def test_without_room_uploads_are_refused_before_they_come_and_jobs_wait(serve: Any, tmp_path: Path) -> None:
    with serve() as client:
        jobs = client.app.state.tessera.jobs
        free = jobs._room._free
        jobs._room._free = lambda: 2**20
        answer = client.post("/jobs", content=ZIP)
        assert "TESSERA_JOB_FREE_BYTES" in problem(answer, 507)
        assert kept(client) == []
        jobs._room._free = free
        engine_job = begun(client, SHADES)
        settled(client, engine_job)
    with serve(max_key_job_bytes=4096) as client:
        assert "TESSERA_MAX_KEY_JOB_BYTES" in problem(client.post("/jobs", content=SHADES), 507)
        client.delete(f"/jobs/{engine_job}")
        small = packed({"a.png": PNG})
        job = begun(client, small, "format=npy")
        found = settled(client, job, "paused", "done")
        assert found["bytes"] > 4096
        problem(client.post("/jobs", content=small), 507)


def test_of_one_key_so_many_jobs_wait_at_once(serve: Any) -> None:
    engine = Slow()
    with serve(lambda bundle: engine, max_key_jobs=2) as client:
        engine.go.clear()
        first, second = begun(client, SHADES), begun(client, SHADES)
        answer = client.post("/jobs", content=ZIP)
        assert "TESSERA_MAX_KEY_JOBS" in problem(answer, 429)
        assert int(answer.headers["retry-after"]) > 0
        assert client.get(f"/jobs/{second}").json()["state"] == "queued"
        engine.go.set()
        settled(client, first)
        settled(client, second)
        settled(client, begun(client))


def test_a_job_waits_for_its_model_and_for_no_other(serve: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, shelf = Bundle.load(tiny_bundle), tmp_path / "models"
    variant(bundle, shelf / "newer", notice="newer")
    shutil.copytree(tiny_bundle, shelf / "tiny")
    with serve(models=shelf, admin_key="open sesame", engine="onnxruntime", job_images=1) as client:
        slots = client.app.state.tessera.jobs._slots
        client.portal.call(slots.acquire)
        job = begun(client, SHADES)
        settled(client, job, "running")
        loaded = client.post("/models/newer/load", headers=ADMIN)
        assert loaded.status_code == 200, loaded.text
        client.portal.call(slots.release)
        found = settled(client, job, "paused")
        assert found["model"] in found["note"]
        assert client.post("/models/tiny/load", headers=ADMIN).status_code == 200
        settled(client, job)
        assert len(result(client, job)) == 12


def test_a_request_goes_before_a_jobs_images(serve: Any) -> None:
    engine = Slow()
    with serve(lambda bundle: engine, job_images=4, cache_bytes=0) as client:
        engine.go.clear()
        job = begun(client, SHADES)
        batcher = client.app.state.tessera.registry.served[0].batcher
        wait_until(lambda: batcher.running == 1 and batcher.waiting == 3)  # all of the job's that may be inside
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(client.post, "/segment?format=png", content=encode(picture(200 + i, 16), "png"))
                for i in (0, 1)
            ]
            wait_until(lambda: batcher.waiting == 5)
            engine.ran.clear()
            engine.go.set()
            assert [one.result().status_code for one in asked] == [200, 200]
        settled(client, job)
        assert {200, 201} == set(engine.ran[1:3])


def test_finished_jobs_are_put_away_by_time_that_the_server_ran(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_TIDY_S", 0.05)
    with serve(job_days=1.5 / 86400) as client:
        settled(client, job := begun(client))
        monkeypatch.setattr(time, "time", lambda: 4e9)  # a clock that jumps by decades puts nothing away
        assert client.get(f"/jobs/{job}").status_code == 200
        wait_until(lambda: client.get(f"/jobs/{job}").status_code == 404)
        wait_until(lambda: kept(client) == [])


def test_folders_of_nobody_are_swept_and_those_being_filled_are_not(serve: Any, tmp_path: Path) -> None:
    home = tmp_path / "state" / "jobs"
    (home / ("0" * 32) / "out").mkdir(parents=True)
    with serve() as client:
        settled(client, job := begun(client))
        wait_until(lambda: [path.name for path in kept(client)] == [job])


def asgi(client: TestClient, messages: list[dict[str, Any]], pause_s: float = 0.0, **headers: str) -> int | None:
    """The status of POST /jobs whose body comes as these messages; then the client rests. None: no answer."""
    statuses: list[int] = []

    async def ask() -> None:
        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(pause_s)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        raw = [
            (b"host", b"localhost"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/jobs",
            "raw_path": b"/jobs", "query_string": b"", "headers": raw, "client": ("127.0.0.1", 1), "scheme": "http",
            "server": ("localhost", 80), "root_path": "", "state": {},
        }  # fmt: skip
        await client.app(scope, receive, send)  # type: ignore[arg-type]

    client.portal.call(ask)  # type: ignore[union-attr]
    return statuses[0] if statuses else None


def piece(data: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": True}


def test_a_client_that_leaves_leaves_nothing_behind(serve: Any) -> None:
    with serve() as client:
        assert asgi(client, [piece(ZIP[:200]), piece(bytes(2**21))], transfer_encoding="chunked") is None
        assert kept(client) == []
        assert client.app.state.tessera.jobs._room.promised == {}
        assert client.get("/jobs").json()["jobs"] == []


def test_a_client_that_sends_slowly_is_told(serve: Any) -> None:
    with serve(body_timeout_s=0.1) as client:
        assert asgi(client, [piece(ZIP[:200])], pause_s=3.0, transfer_encoding="chunked") == 408
        assert kept(client) == []


def test_two_uploads_are_bounded_together(serve: Any) -> None:
    with serve(max_key_job_bytes=300_000) as client:
        with client.app.state.tessera.jobs._room.promise("", 0) as other:
            other.ask(200_000)
            assert client.post("/jobs", content=b"PK" + bytes(150_000)).status_code == 507
            assert client.post("/jobs", content=(b"PK" + bytes(50_000) for _ in range(3))).status_code == 507
        assert client.post("/jobs", content=b"PK" + bytes(150_000)).status_code == 400
        assert kept(client) == []


def test_a_database_that_is_lost_takes_no_server_with_it(serve: Any, tmp_path: Path) -> None:
    with serve() as client:
        settled(client, begun(client))
    (tmp_path / "state" / "jobs" / "jobs.sqlite3").write_bytes(b"noise" * 999)
    with serve() as client:
        assert client.get("/jobs").json()["jobs"] == []
        settled(client, begun(client))


class Store:
    """What stands behind s3:// here: objects by their names, of which one cannot be read."""

    def find(self, url: str, *, detail: bool) -> dict[str, dict[str, object]]:
        folder = url.removeprefix("s3://") + "/"
        names = ("photos/2026/a.png", "photos/2026/b/c.png", "photos/2026/b/gone.png", "photos/2026/notes.txt")
        return {name: {"size": len(PNG), "ETag": name, "type": "file"} for name in names if name.startswith(folder)}

    def cat_file(self, url: str) -> bytes:
        if url.endswith("gone.png"):
            raise PermissionError("Access Denied")
        return PNG


def test_a_folder_of_an_object_store(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.Bucket, "of", classmethod(lambda cls, url: cls("s3", Store())))
    with serve(buckets="gs://maps, s3://photos") as client:
        job = begun(client, None, json={"path": "s3://photos/2026"})
        found = settled(client, job)
        assert found["progress"]["total"] == 3
        assert [failure["file"] for failure in found["failures"]] == ["b/gone.png"]
        assert set(result(client, job)) == {"a.png", "b/c.png"}
        problem(client.post("/jobs", json={"path": "s3://photos2/2026"}), 404)
        job = client.post("/jobs", json={"path": "s3://photos/1999"}).json()["id"]
        assert "holds nothing" in settled(client, job, "paused")["note"]
