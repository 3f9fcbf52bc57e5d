"""Classes under real servers that are killed, and under several at once: what was acknowledged is there, once."""

import http.client
import json
import random
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.service.answers import PNG
from tests.service.process import ask, process

pytestmark = pytest.mark.slow  # tests/service/repository/test_classes.py has the quick ones


class Teacher(threading.Thread):
    """Makes a class and shows it places, taking every fifth one away again, until the server is gone or it has shown
    so many.

    shown, removed  numbers of examples that were acknowledged;  unsure  one that was to be removed when the server went
    """

    def __init__(self, port: int, name: str, most: int = 10**9) -> None:
        super().__init__()
        self.port, self.name_, self.most = port, name, most
        self.shown: set[int] = set()
        self.removed: set[int] = set()
        self.unsure: set[int] = set()
        self.id = -1
        self.refused = ""

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

        def ask(method: str, path: str, body: bytes | None = None) -> dict[str, int]:
            connection.request(method, path, body)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            if answer.status >= 300:
                self.refused = str(document)
            return dict(document)

        try:
            self.id = ask("POST", "/classes", json.dumps({"name": self.name_}).encode()).get("id", -1)
            while len(self.shown) < self.most and not self.refused:
                n = ask("POST", f"/classes/{self.id}/examples?x={random.randrange(100)}&y=5", PNG)["example"]
                self.shown.add(n)
                if len(self.shown) % 5 == 0:
                    self.unsure = {n}
                    ask("DELETE", f"/classes/{self.id}/examples/{n}")
                    self.removed.add(n)
                    self.unsure = set()
        except (OSError, http.client.HTTPException, KeyError):
            pass
        finally:
            connection.close()

    def check(self, port: int) -> int:
        """That the server shows all of it, and at most one example that nobody was told of; how many there are."""
        if self.id < 0:
            return 0
        status, body = ask(port, "GET", f"/classes/{self.id}")
        assert status == 200
        document = json.loads(body)
        there = {example["n"] for example in document["examples_list"]}
        kept = self.shown - self.removed
        assert document["name"] == self.name_
        assert kept - self.unsure <= there, f"{kept - there} are lost"
        assert not there & self.removed
        assert len(there - kept) <= 1
        return len(there)


def test_sigkill_at_any_moment_of_teaching_loses_nothing_acknowledged(tiny_bundle: Path, tmp_path: Path) -> None:
    moment, teachers, kills = random.Random(7), list[Teacher](), 12
    for kill in range(kills + 1):
        with process(tiny_bundle, tmp_path, TESSERA_ENGINE="onnxruntime") as (running, port):
            counts = [teacher.check(port) for teacher in teachers]
            if kill == kills:
                assert sum(counts) > kills
                assert ask(port, "POST", "/segment?classes=true&format=npy", PNG)[0] == 200
                break
            now = [Teacher(port, f"{kill} {i}") for i in range(3)]
            for teacher in now:
                teacher.start()
            time.sleep(moment.uniform(0.05, 0.6))
            running.send_signal(signal.SIGKILL)
            for teacher in now:
                teacher.join(20)
                assert not teacher.refused
            teachers += now


def test_several_writers_on_one_folder_lose_nothing_and_a_full_disk_changes_nothing(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    with (
        process(tiny_bundle, tmp_path, TESSERA_ENGINE="onnxruntime") as (one, port),
        process(tiny_bundle, tmp_path, "--workers", "2", TESSERA_ENGINE="onnxruntime") as (_, other),
    ):
        teachers = [Teacher(asked, f"{asked} {i}", most=12) for i in range(3) for asked in (port, other)]
        for teacher in teachers:
            teacher.start()
        for teacher in teachers:
            teacher.join(60)
            assert not teacher.refused
        assert len({teacher.id for teacher in teachers}) == 6
        for asked in (port, other):
            assert [teacher.check(asked) for teacher in teachers] == [10] * 6
        most = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (512, most[1]))
        before = ask(port, "GET", "/classes")[1]
        status, body = ask(port, "POST", "/classes/0/examples?x=5&y=5", PNG)
        assert (status, "TESSERA_STATE" in json.loads(body)["detail"]) == (507, True)
        assert ask(port, "DELETE", "/classes/0")[0] == 507
        assert ask(port, "GET", "/classes")[1] == ask(other, "GET", "/classes")[1] == before
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, most)
        deadline = time.monotonic() + 10
        while not json.loads(ask(port, "GET", "/healthz")[1])["names_kept"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(port, "POST", "/classes/0/examples?x=5&y=5", PNG)[0] == 201
