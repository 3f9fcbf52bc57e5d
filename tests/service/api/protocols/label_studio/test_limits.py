"""Label Studio's limits in a full house: it gives up on a connection or /health after 1 s, on /setup after 3 s."""

import http.client
import json
import threading
import time
from pathlib import Path

import pytest

from tests.service.api.protocols.label_studio.test_routes import BRUSH
from tests.service.process import process

pytestmark = pytest.mark.timing
STREET = Path(__file__).parents[5] / "docs" / "street.jpg"
CONNECT_S, HEALTH_S, SETUP_S = 1.0, 1.0, 3.0
FLOOD = 300  # requests at once: more than one client may have inside


def ask(port: int, method: str, path: str, body: bytes, limit_s: float) -> tuple[float, bytes]:
    """How long an answer took on a connection of its own, as Label Studio opens one for every call."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CONNECT_S)
    connection.connect()
    assert connection.sock is not None
    connection.sock.settimeout(limit_s)
    connection.request(method, path, body)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 200, said
    return time.monotonic() - began, said


def test_they_are_kept_while_everything_is_taken(tiny_bundle: Path, tmp_path: Path) -> None:
    photo = STREET.read_bytes()
    statuses: list[int] = []
    over = threading.Event()

    def flood(port: int) -> None:
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request("POST", "/segment", photo)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            except OSError:
                statuses.append(0)
            finally:
                connection.close()
            if statuses[-1] != 200:
                over.wait(0.5)

    took: dict[str, list[float]] = {"health": [], "setup": []}
    setup = json.dumps({"project": "1.17", "schema": BRUSH}).encode()
    with process(tiny_bundle, tmp_path / "state", TESSERA_ACCESS_LOG="false", TESSERA_CACHE_BYTES="0") as (
        server,
        port,
    ):
        assert server.stderr is not None
        threading.Thread(target=list, args=(server.stderr,), daemon=True).start()  # what is refused is logged
        threads = [threading.Thread(target=flood, args=(port,)) for _ in range(FLOOD)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(2)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                took["health"].append(ask(port, "GET", "/label-studio/health", b"", HEALTH_S)[0])
                seconds, said = ask(port, "POST", "/label-studio/setup", setup, SETUP_S)
                took["setup"].append(seconds)
                assert json.loads(said)["model_version"].startswith("tiny@")
                time.sleep(0.05)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    print({name: f"{max(times):.3f} s at most of {len(times)}" for name, times in took.items()})
    assert {429, 503} & set(statuses), "it was full"
    assert 200 in statuses
    assert len(took["setup"]) >= 10
