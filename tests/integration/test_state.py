"""The state folder under real servers that are killed, and that find no room: what was acknowledged is there."""

import http.client
import json
import random
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.service.process import ask, process

PEOPLE = 3
pytestmark = pytest.mark.slow  # tests/service/repository/test_database.py has the quick ones


class Person(threading.Thread):
    """Calls one cluster `1`, `2`, `3` … until the server is gone.

    acknowledged  the number of the last change that was answered with 200;  sent  that of the last one asked for
    """

    def __init__(self, port: int, cluster: int, number: int) -> None:
        super().__init__()
        self.port, self.cluster = port, cluster
        self.acknowledged = self.sent = number
        self.refused = ""

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            while not self.refused:
                self.sent += 1
                connection.request("PATCH", f"/clusters/{self.cluster}", json.dumps({"name": str(self.sent)}))
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status == 200:
                    self.acknowledged = self.sent
                else:
                    self.refused = text
        except (OSError, http.client.HTTPException):
            connection.close()


def numbers(port: int) -> list[int]:
    """What the clusters of these people are called now."""
    names = [cluster["name"] for cluster in json.loads(ask(port, "GET", "/clusters")[1])["clusters"]]
    return [int(name) if name.isdecimal() else 0 for name in names[:PEOPLE]]


@pytest.mark.parametrize("kills", [50])
def test_sigkill_at_any_moment_loses_no_acknowledged_change(tiny_bundle: Path, tmp_path: Path, kills: int) -> None:
    moment = random.Random(kills)
    people: list[Person] = []
    acknowledged = 0
    for kill in range(kills + 1):
        with process(tiny_bundle, tmp_path, TESSERA_ENGINE="onnxruntime") as (running, port):
            shown = numbers(port)
            for person, number in zip(people, shown, strict=False):
                assert person.acknowledged <= number <= person.sent, f"after kill {kill}, cluster {person.cluster}"
            if kill == kills:
                break
            people = [Person(port, cluster, number) for cluster, number in enumerate(shown)]
            for person in people:
                person.start()
            time.sleep(moment.uniform(0.02, 0.4))
            running.send_signal(signal.SIGKILL)
            for person in people:
                person.join(20)
                assert not person.refused
                acknowledged += person.acknowledged - shown[person.cluster]
    assert acknowledged > kills


def test_two_servers_and_a_full_disk(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        process(tiny_bundle, tmp_path, TESSERA_ENGINE="onnxruntime") as (one, port),
        process(tiny_bundle, tmp_path, TESSERA_ENGINE="onnxruntime") as (_, other_port),
    ):
        assert ask(port, "PATCH", "/clusters/0", b'{"name": "brick"}')[0] == 200
        assert ask(other_port, "PATCH", "/clusters/0", b'{"color": "#123456"}')[0] == 200
        most = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (512, most[1]))
        status, body = ask(port, "PATCH", "/clusters/1", b'{"name": "grass"}')
        assert status == 507
        assert "TESSERA_STATE" in json.loads(body)["detail"]
        assert ask(other_port, "PATCH", "/clusters/2", b'{"name": "lake"}')[0] == 200
        assert not json.loads(ask(port, "GET", "/healthz")[1])["names_kept"]
        for asked in (port, other_port):
            clusters = json.loads(ask(asked, "GET", "/clusters")[1])["clusters"]
            assert [c["name"] for c in clusters[:3]] == ["brick", "green", "lake"]
            assert clusters[0]["color"] == "#123456"
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, most)
        deadline = time.monotonic() + 10
        while not json.loads(ask(port, "GET", "/healthz")[1])["names_kept"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(port, "PATCH", "/clusters/1", b'{"name": "grass"}')[0] == 200
