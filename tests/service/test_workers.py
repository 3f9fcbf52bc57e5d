"""`tessera serve --workers` as processes: one name, one bound, one set of counters; killed, ended, told to load."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.own_server import counters
from models.errors import UsageError
from models.io.encode import encode
from service.fleet import page
from service.workers import Part
from tests.service.fakes import free_port, wait_until
from tests.service.process import ROOT, ask, command
from tests.service.server import proved
from tests.tiny import bands

PNG = encode(bands(), "png")
_EVERYWHERE = 24  # connections, so that each of two workers surely has one of them
# While a file is there every image is held.
_HELD = """
import sys, time
from pathlib import Path
from service.repository.proving import Prover
from tests.service.fakes import FakeEngine

class Held(FakeEngine):
    def __call__(self, pixels, *, code=False):
        while Path({hold!r}).exists():
            time.sleep(0.01)
        return super().__call__(pixels, code=code)

    def warm(self, shapes):
        pass

Prover.open = lambda self, bundle: Held()
"""


@contextmanager
def workers(
    bundle: Path, state: Path, count: int = 2, *, code: str = "", **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """Ready ones; their log is in the file that comes with them."""
    port, log = free_port(), state.parent / f"{state.name}.log"
    arguments = ["--bundle", str(bundle), "--port", str(port), "--workers", str(count)]
    run = command(*arguments)
    if code:
        run = [sys.executable, "-c", f"{code}\nfrom service.cli import serve\nserve()", *arguments]
    with log.open("w") as file:
        running = subprocess.Popen(
            run,
            cwd=ROOT,
            env={**os.environ, "TESSERA_STATE": str(proved(bundle, state)), "TESSERA_THREADS": "1", **environment},
            stderr=file,
            text=True,
        )
    try:
        wait_until(lambda: all_answer(port, count), 60)
        yield running, port, log
    finally:
        running.kill()  # its workers end with it
        running.wait()


def all_answer(port: int, count: int) -> bool:
    try:
        return counters(port)["tessera_workers"] == count and ask(port, "GET", "/readyz")[0] == 200
    except OSError:
        return False


def grown(before: dict[str, float], after: dict[str, float]) -> None:
    """No counter of the second scrape is smaller than in the first, and none is missing."""
    for name, value in before.items():
        if re.search(r"(_total|_count|_sum|_bucket)(\{|$)", name):
            assert after.get(name, -1) >= value, (name, value, after.get(name))


@pytest.mark.slow
def test_names_counters_and_wrong_keys_are_those_of_all(tiny_bundle: Path, tmp_path: Path) -> None:
    with workers(tiny_bundle, tmp_path / "state", TESSERA_ADMIN_KEY="root") as (running, port, log):
        assert len(machine.children(running.pid)) == 2
        for number in range(6):
            name = f"name {number}"
            assert ask(port, "PATCH", "/clusters/2", json.dumps({"name": name}).encode())[0] == 200
            time.sleep(0.2)  # far less than the second after which servers look by themselves
            shown = [ask(port, "POST", "/segment", PNG)[1] for _ in range(6)]
            assert all(name.encode() in one for one in shown)
        for _ in range(_EVERYWHERE):
            assert name.encode() in ask(port, "GET", "/clusters/2")[1]
        found = counters(port)
        assert found["tessera_images_total"] == 36
        assert found['tessera_requests_total{code="200",route="/segment"}'] == 36
        assert found['tessera_request_seconds_count{route="/segment"}'] == 36
        statuses = [_load(port, f"guess {number}")[0] for number in range(30)]
        assert statuses == [401] * 10 + [429] * 20
        before = found
        for _ in range(_EVERYWHERE):  # whoever answers, nothing falls
            grown(before, before := counters(port))
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        assert "Traceback" not in log.read_text()
        assert log.read_text().count("POST /segment, or open it in a browser") == 1


def _load(port: int, key: str, name: str = "other", body: str = "{}") -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", f"/models/{name}/load", body, {"X-API-Key": key, "Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


@pytest.mark.slow
def test_as_many_are_inside_as_the_setting_says(tiny_bundle: Path, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    settings = {"TESSERA_MAX_QUEUE_SIZE": "7", "TESSERA_CACHE_BYTES": "0"}
    code = _HELD.format(hold=str(hold))
    with workers(tiny_bundle, tmp_path / "state", code=code, **settings) as (_, port, _log):
        hold.touch()
        answers: list[tuple[int, bytes]] = []

        def client() -> None:
            answers.append(ask(port, "POST", "/segment?format=png", PNG))

        threads = [threading.Thread(target=client) for _ in range(60)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) == 60 - 7, 20)
        time.sleep(0.5)
        assert [status for status, _ in answers] == [503] * 53
        assert all(b"7 images are in the queue, as many as fit" in body for _, body in answers)
        assert counters(port)["tessera_requests_waiting"] + counters(port)["tessera_requests_running"] <= 7
        hold.unlink()
        for thread in threads:
            thread.join(20)
        assert sorted(status for status, _ in answers) == [200] * 7 + [503] * 53
        assert counters(port)['tessera_refused_total{reason="queue_full"}'] == 53


@pytest.mark.slow
def test_a_killed_one_takes_its_own_requests_along_and_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    with workers(tiny_bundle, tmp_path / "state", TESSERA_CACHE_BYTES="0") as (running, port, log):
        stop, lost, refused, answered = threading.Event(), [], [], []

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            while not stop.is_set():
                try:
                    connection.request("POST", "/segment?format=png", PNG)
                    answer = connection.getresponse()
                    answer.read()
                    (answered if answer.status == 200 else refused).append(answer.status)
                except (http.client.HTTPException, OSError) as error:
                    lost.append(error)
                    connection.close()
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        before = counters(port)
        wait_until(lambda: len(answered) > 50)
        for _ in range(2):
            victim = machine.children(running.pid)[0]
            grown(before, before := counters(port))
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in machine.children(running.pid))  # type: ignore[misc]
            so_far = len(answered)
            wait_until(lambda so_far=so_far: len(answered) > so_far + 20)  # type: ignore[misc]
            deadline = time.monotonic() + 30
            while before["tessera_workers"] < 2 or len(machine.children(running.pid)) < 2:
                grown(before, before := counters(port))
                assert time.monotonic() < deadline
                time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join(20)
        assert refused == []
        # Of each connection that it had the request that was under way, and once more who is back before it is gone.
        assert 1 <= len(lost) <= 2 * 2 * len(threads)
        grown(before, after := counters(port))
        assert after["tessera_requests_running"] == after["tessera_requests_waiting"] == 0
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        assert log.read_text().count("was killed by signal 9; it is started again") == 2


@pytest.mark.slow
def test_one_that_stands_still_is_killed_and_another_serves_in_its_place(tiny_bundle: Path, tmp_path: Path) -> None:
    port, folder, log = free_port(), Path(tempfile.mkdtemp(prefix="tessera-")), tmp_path / "log"
    page.create(folder, ["1", "2"])
    crew = (command("--bundle", str(tiny_bundle), "--port", str(port)), str(folder), 2)
    code = f"from service.supervisor import Crew; raise SystemExit(Crew(*{crew!r}, still_s=6.0).run())"
    state = str(proved(tiny_bundle, tmp_path / "state"))
    with log.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "TESSERA_STATE": state, "TESSERA_THREADS": "1"},
            stderr=file,
        )
    try:
        wait_until(lambda: all_answer(port, 2), 60)
        wait_until(lambda: all(any((folder / f"{number}.page").read_bytes()[:8]) for number in (1, 2)))
        pids = set(machine.children(running.pid))
        victim = max(pids)
        os.kill(victim, signal.SIGSTOP)
        answered = 0
        deadline = time.monotonic() + 30
        while victim in machine.children(running.pid):
            assert time.monotonic() < deadline, log.read_text()
            with suppress(OSError):  # half of them come to the one that stands still
                answered += ask(port, "POST", "/segment?format=png", PNG, timeout_s=0.5)[0] == 200
        assert answered
        wait_until(lambda: len(machine.children(running.pid)) == 2 and all_answer(port, 2), 60)
        for _ in range(_EVERYWHERE):
            assert ask(port, "POST", "/segment?format=png", PNG)[0] == 200
        assert pids - {victim} < set(machine.children(running.pid))  # the other went on
        told = log.read_text()
        assert len(re.findall(r"WARNING supervisor: worker \d stood still for 6 s and is killed", told)) == 1
        assert re.search(r"^\S+ INFO    \[[12]\] POST /segment 200", told, re.MULTILINE)
    finally:
        running.kill()  # who ends last deletes where they met
        running.wait()
    wait_until(lambda: not folder.exists(), 20)


@pytest.mark.slow
def test_the_end_resets_no_connection(tiny_bundle: Path, tmp_path: Path) -> None:
    with workers(tiny_bundle, tmp_path / "state", TESSERA_CACHE_BYTES="0") as (running, port, _log):
        answers: list[int] = []
        ended: list[Exception] = []

        def client() -> None:
            try:
                while True:
                    answers.append(ask(port, "POST", "/segment?format=png", PNG)[0])
            except Exception as error:
                ended.append(error)

        threads = [threading.Thread(target=client) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 50)
        running.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert [type(error) for error in ended] == [ConnectionRefusedError] * 12
        assert set(answers) <= {200, 503}
        assert running.wait(30) == 0


@pytest.mark.slow
def test_what_is_loaded_is_loaded_on_all_and_by_whoever_comes_later(tiny_bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(tiny_bundle, models / "other")
    manifest = models / "other" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "other"'))
    (models / "bad").mkdir()
    (models / "bad" / "manifest.json").write_text("{}")
    settings = {"TESSERA_MODELS": str(models), "TESSERA_ADMIN_KEY": "root"}

    def served(port: int) -> list[str]:
        return [
            re.sub("@.*", "", model["name"])
            for model in json.loads(ask(port, "GET", "/models")[1])["models"]
            if model["state"] == "ready"
        ]

    with workers(tiny_bundle, tmp_path / "state", **settings) as (running, port, log):
        assert _load(port, "root", "bad")[0] == 422
        status, answer = _load(port, "root", "other", '{"default": true}')
        assert status == 200, answer
        for _ in range(_EVERYWHERE):
            assert served(port) == ["other", "tiny"]
        victim = machine.children(running.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in machine.children(running.pid))
        wait_until(lambda: all_answer(port, 2), 60)
        for _ in range(_EVERYWHERE):
            assert served(port) == ["other", "tiny"]
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(30) == 0, log.read_text()


@pytest.mark.slow
def test_a_job_is_worked_once_and_by_another_when_its_worker_dies(tiny_bundle: Path, tmp_path: Path) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(150):
            file.writestr(f"{number:03}.png", PNG)
    with workers(tiny_bundle, tmp_path / "state", TESSERA_CACHE_BYTES="0") as (running, port, _log):
        ids = []
        for _ in range(2):
            status, body = ask(port, "POST", "/jobs?format=png", archive.getvalue())
            assert status == 202, body
            ids.append(json.loads(body)["id"])

        def progress(id: str) -> dict[str, int]:
            status, body = ask(port, "GET", f"/jobs/{id}")
            assert status == 200, body
            told: dict[str, int] = json.loads(body)["progress"]
            return told

        wait_until(lambda: progress(ids[0])["done"] > 0, 30)
        (leader,) = [pid for pid in machine.children(running.pid) if _holds(pid, "running.lock")]
        os.kill(leader, signal.SIGKILL)
        wait_until(lambda: leader not in machine.children(running.pid))
        for id in ids:
            wait_until(lambda id=id: b'"state":"done"' in ask(port, "GET", f"/jobs/{id}")[1], 60)  # type: ignore[misc]
            for _ in range(4):
                told = progress(id)
                assert (told["total"], told["done"], told["failed"]) == (150, 150, 0)
            status, result = ask(port, "GET", f"/jobs/{id}/result")
            assert status == 200
            with zipfile.ZipFile(BytesIO(result)) as file:
                assert len(set(file.namelist())) == 150
        assert ask(port, "DELETE", f"/jobs/{ids[0]}")[0] == 200
        for _ in range(8):
            assert ask(port, "GET", f"/jobs/{ids[0]}")[0] == 404


def _holds(pid: int, name: str) -> bool:
    return any(name in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())


def refused(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("--workers", "3", *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_what_keeps_all_from_starting_is_said_once(tiny_bundle: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    port = str(free_port())
    wrong = refused("--port", port, TESSERA_STATE=state, TESSERA_MAX_MPX="much")
    assert wrong.returncode == 2
    assert wrong.stderr.count("TESSERA_MAX_MPX") == 1
    absent = refused("--port", port, "--bundle", str(tmp_path / "absent"), TESSERA_STATE=state)
    assert absent.returncode == 2
    assert absent.stderr.count("is no bundle folder") == 1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text("{}")
    bad = refused("--port", port, "--bundle", str(tmp_path / "bad"), TESSERA_STATE=state)
    assert bad.returncode == 1
    assert bad.stderr.count("cannot serve: ") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        inuse = refused("--port", str(taken.getsockname()[1]), TESSERA_STATE=state)
    assert inuse.returncode == 1
    assert inuse.stderr.count("address already in use; choose another") == 1


def test_what_a_worker_is_told_is_read_exactly(tmp_path: Path) -> None:
    assert Part.parse(f"2/3:{tmp_path}") == (2, 3, tmp_path)
    for text in ("", "1", "0/2:/", "3/2:/", "x/2:/", f"1/2:{tmp_path / 'absent'}"):
        with pytest.raises(UsageError, match="--worker"):
            Part.parse(text)
