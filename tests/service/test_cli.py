"""`tessera serve` as a process: it starts, refuses a bad bundle in one line, finishes its work when told to go."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import machine
from models.crf import reference
from models.io.encode import encode
from tests.service.fakes import free_port, wait_until
from tests.service.process import ask, command, process
from tests.tiny import bands

ROOT = Path(__file__).parents[2]
PNG = encode(bands(), "png")


@pytest.fixture(scope="module")
def bounded(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that many tests ask, with little time and room for a request."""
    limits = {"TESSERA_BODY_TIMEOUT_S": "1", "TESSERA_HEADER_TIMEOUT_S": "1", "TESSERA_MAX_BODY_BYTES": "4096"}
    quiet = {"TESSERA_ACCESS_LOG": "false"}  # nobody reads what it says
    with process(tiny_bundle, tmp_path_factory.mktemp("bounded"), **limits, **quiet) as (_, port):
        yield port


def head(length: int, path: str = "/segment?format=png") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), length)


def test_sigterm_says_not_ready_serves_on_and_then_finishes_what_is_inside(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        process(tiny_bundle, tmp_path, TESSERA_LAME_DUCK_S="1", TESSERA_KEEP_ALIVE_S="20") as (running, port),
        socket.create_connection(("127.0.0.1", port), timeout=10) as slow,
        socket.create_connection(("127.0.0.1", port), timeout=10) as kept,
    ):
        slow.sendall(head(len(PNG)) + PNG[:50])  # a request whose body is still coming in: accepted, so it is answered
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = kept.recv(4096)
        while not received.endswith(b'{"live":true}'):  # head and body may come one after the other
            received += kept.recv(4096)
        assert received.startswith(b"HTTP/1.1 200")
        running.send_signal(signal.SIGTERM)
        told = time.monotonic()
        while ask(port, "GET", "/readyz")[0] == 200:
            assert time.monotonic() - told < 0.5
        assert ask(port, "POST", "/segment", PNG)[0] == 200
        assert ask(port, "GET", "/livez")[0] == 200
        with suppress(ConnectionRefusedError):
            while time.monotonic() - told < 10:
                ask(port, "GET", "/livez")
        assert 1 <= time.monotonic() - told < 10
        kept.sendall(head(len(PNG)) + PNG)
        refused = kept.recv(4096)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in refused
        slow.sendall(PNG[50:])
        assert slow.recv(12) == b"HTTP/1.1 200"
        assert running.wait(10) == 0


@pytest.mark.slow
def test_what_is_not_finished_is_ended_when_the_time_is_up(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        process(tiny_bundle, tmp_path, TESSERA_DRAIN_S="1") as (running, port),
        socket.create_connection(("127.0.0.1", port), timeout=10) as stalled,
    ):
        stalled.sendall(head(len(PNG)) + PNG[:50])
        assert ask(port, "GET", "/livez")[0] == 200
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        assert time.monotonic() - began >= 1
        assert running.stderr is not None
        said = running.stderr.read()
        assert "the time is up (TESSERA_DRAIN_S): 1 requests" in said
        assert "Traceback" not in said


@pytest.mark.slow
def test_no_connection_is_reset_when_the_server_goes(tiny_bundle: Path, tmp_path: Path) -> None:
    with process(tiny_bundle, tmp_path) as (running, port):
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
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        assert [type(error) for error in ended] == [ConnectionRefusedError] * 12
        assert answers.count(200) >= 12
        assert set(answers) <= {200, 503}
        assert running.wait(10) == 0


@pytest.mark.slow
@pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")
def test_its_own_processes_end_with_it(tiny_bundle: Path, tmp_path: Path) -> None:
    with process(tiny_bundle, tmp_path, TESSERA_CRF="pydensecrf", TESSERA_WORKERS="2") as (running, port):
        assert b'"refined":true' in ask(port, "POST", "/segment?crf=true", PNG)[1]
        of_crf = machine.children(running.pid)
        assert len(of_crf) >= 2
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        deadline = time.monotonic() + 5
        while any("python" in name_of(child) for child in of_crf):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def name_of(pid: int) -> str:
    """The command of a process; empty when it is gone or has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_body_that_stalls_is_cut_off_while_others_are_served(bounded: int) -> None:
    stalled = socket.create_connection(("127.0.0.1", bounded))
    stalled.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n0123456789")
    for _ in range(5):
        assert ask(bounded, "POST", "/segment", PNG)[0] == 200
    stalled.settimeout(10)
    received = stalled.recv(4096)
    stalled.shutdown(socket.SHUT_WR)
    while chunk := stalled.recv(4096):  # until the server closes, which it does once nothing more can come
        received += chunk
    assert received.startswith(b"HTTP/1.1 408")
    assert b"10 bytes had" in received
    stalled.close()


def test_a_client_that_leaves_costs_nothing_more(bounded: int) -> None:
    def left() -> int:
        told = re.search(rb'tessera_refused_total{reason="client_left"} (\d+)', ask(bounded, "GET", "/metrics")[1])
        return int(told[1]) if told else 0

    before = left()
    for _ in range(5):
        leaving = socket.create_connection(("127.0.0.1", bounded))
        leaving.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n0123456789")
        leaving.close()
    wait_until(lambda: left() == before + 5, 5)
    assert ask(bounded, "POST", "/segment", PNG)[0] == 200


@pytest.mark.slow
def test_names_survive_a_kill(tiny_bundle: Path, tmp_path: Path) -> None:
    with process(tiny_bundle, tmp_path) as (running, port):
        assert ask(port, "PATCH", "/clusters/2", b'{"name": "lake"}')[0] == 200
        running.send_signal(signal.SIGKILL)
        running.wait()
    with process(tiny_bundle, tmp_path) as (_, port):
        assert b'"name":"lake"' in ask(port, "POST", "/segment", PNG)[1]


def test_a_large_declared_body_is_refused_unread(bounded: int) -> None:
    greedy = socket.create_connection(("127.0.0.1", bounded))
    greedy.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
    greedy.settimeout(5)
    assert greedy.recv(12) == b"HTTP/1.1 413"
    greedy.close()


def test_a_client_in_the_middle_of_a_large_upload_hears_why_it_is_refused(bounded: int) -> None:
    for body in (bytes(20_000_000), (bytes(100_000) for _ in range(200))):
        connection = http.client.HTTPConnection("127.0.0.1", bounded, timeout=20)
        connection.request("POST", "/segment", body)
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"TESSERA_MAX_BODY_BYTES" in answer.read()
        connection.close()


def test_a_bad_bundle_ends_the_start_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        command("--bundle", str(tmp_path / "absent"), "--port", str(free_port())),
        cwd=ROOT,
        env={**os.environ, "TESSERA_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "is no bundle folder; train one, or name another with --bundle" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    ask_twice = "from service.cli import open_files; import resource as r; r.setrlimit(7, (100, r.getrlimit(7)[1]))"
    said = subprocess.check_output(
        [sys.executable, "-c", f"{ask_twice}; print(open_files(), *r.getrlimit(7))"], cwd=ROOT, text=True
    )
    now, soft, hard = map(int, said.split())
    assert now == soft > 100
    assert soft == hard or soft == 2**20


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    ended = subprocess.run(command("--prot", "1"), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2


def test_many_clients_over_real_sockets(bounded: int) -> None:
    statuses: list[int] = []

    def client() -> None:
        statuses.extend(ask(bounded, "POST", "/segment?format=png", PNG)[0] for _ in range(3))

    threads = [threading.Thread(target=client) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 120


def test_slow_headers_end_the_connection_and_nobody_elses(bounded: int) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", bounded, timeout=20)
    kept.request("GET", "/livez")
    kept.getresponse().read()
    slow = [socket.create_connection(("127.0.0.1", bounded), timeout=10) for _ in range(20)]
    began = time.monotonic()
    for connection in slow[1:]:  # the first never says a word
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    for connection in slow:
        assert connection.recv(100) == b""
        connection.close()
    assert time.monotonic() - began > 0.3
    kept.request("GET", "/livez")  # between two requests a connection may rest
    assert kept.getresponse().status == 200
    kept.close()


@pytest.mark.slow
@pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")
def test_nothing_is_compiled_where_pydensecrf_answers(tiny_bundle: Path, tmp_path: Path) -> None:
    settings = {"NUMBA_CACHE_DIR": str(tmp_path / "code"), "TESSERA_CRF": "pydensecrf"}
    with process(tiny_bundle, tmp_path, **settings) as (running, port):
        assert json.loads(ask(port, "POST", "/segment?crf=true", PNG)[1])["refined"]
        running.terminate()
        assert "being compiled" not in running.communicate(timeout=20)[1]
    assert not list(tmp_path.glob("code/*/*"))


@pytest.mark.slow
def test_a_fresh_install_compiles_the_crf_beside_the_server(tiny_bundle: Path, tmp_path: Path) -> None:
    for room in ("models", "service"):  # code is another install's where the sources lie elsewhere
        ignored = shutil.ignore_patterns("__pycache__", "pretrained")
        shutil.copytree(ROOT / room, tmp_path / "install" / room, ignore=ignored)
    fresh = {"PYTHONPATH": str(tmp_path / "install"), "NUMBA_CACHE_DIR": str(tmp_path / "code")}
    with process(tiny_bundle, tmp_path, **fresh) as (running, port):
        told = [json.loads(ask(port, "POST", "/segment?crf=true", PNG)[1])]
        while not told[-1]["refined"] and len(told) < 12:  # ten seconds each
            told.append(json.loads(ask(port, "POST", "/segment?crf=true", PNG)[1]))
        assert told[-1]["refined"]
        assert all("being compiled, once on this machine" in one["warnings"][0] for one in told[:-1])
        deadline = time.monotonic() + 120
        while not list((tmp_path / "code").glob("crf-*/ready")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.terminate()
        log = running.communicate(timeout=20)[1]
    assert log.count("the CRF is being compiled") == 1
    assert log.count("the CRF is compiled for the models served") == 1
    with process(tiny_bundle, tmp_path, **fresh) as (running, port):
        assert json.loads(ask(port, "POST", "/segment?crf=true", PNG)[1])["refined"]
        running.terminate()
        assert "compiled" not in running.communicate(timeout=20)[1]


@pytest.mark.parametrize(
    "broken",
    [
        "service.engines.open_engine = lambda *_: sys.exit('a library wants to end')",
        "service.inference.runtime.Runtime.of = lambda *_: [].pop()",
    ],
)
def test_whatever_a_start_meets_it_ends_with_1_and_a_sentence(broken: str, tiny_bundle: Path, tmp_path: Path) -> None:
    code = f"import sys, service.engines, service.inference.runtime; from service.cli import serve; {broken}; serve()"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, "--bundle", str(tiny_bundle), "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "TESSERA_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert re.search(r"(ERROR|CRITICAL) +.*(cannot serve: tiny|cannot serve: IndexError)", ended.stderr)
