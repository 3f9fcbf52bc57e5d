"""The supervisor: what is started again and what is not, how often, and that signals reach the server."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from types import SimpleNamespace

import pytest

from benchmarks import machine
from service.supervisor import Crew, Pulse, Supervisor
from tests.service.fakes import free_port, wait_until

ROOT = Path(__file__).parents[2]


def supervised(*command: str) -> subprocess.Popen[str]:
    code = (
        "import sys; from service.supervisor import Supervisor; sys.exit(Supervisor(sys.argv[1:], pause_s=0.02).run())"
    )
    return subprocess.Popen([sys.executable, "-c", code, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def server(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.mark.parametrize(("script", "status", "runs"), [("pass", 0, 1), ("raise SystemExit(2)", 2, 1)])
def test_what_ends_for_good_is_not_started_again(script: str, status: int, runs: int) -> None:
    running = supervised(*server(script))
    said = running.communicate(timeout=20)[1]
    assert (running.returncode, said) == (status, "")


def test_so_many_failures_and_no_more(tmp_path: Path) -> None:
    told = tmp_path / "runs"
    script = f"import os, signal; open({str(told)!r}, 'a').write('x'); os.kill(os.getpid(), signal.SIGKILL)"
    running = supervised(*server(script))
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 1
    assert told.read_text() == "x" * 6  # the first, and five restarts
    assert said.count("was killed by signal 9; it is started again in") == 5
    assert "5 restarts within 10 minutes are enough" in said


def test_failures_long_ago_do_not_count(tmp_path: Path) -> None:
    told = tmp_path / "runs"
    script = f"""
open({str(told)!r}, 'a').write('x')
raise SystemExit(0 if len(open({str(told)!r}).read()) == 4 else 7)
"""
    code = f"""
from service.supervisor import Supervisor
print(Supervisor({server(script)!r}, restarts=1, within_s=0, pause_s=0).run())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "0\n", done.stderr
    assert done.stderr.count("ended with exit code 7") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on_once_and_its_status_is_the_servers(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "told"
    script = f"""
import signal, time
def note(number, frame):
    open({str(told)!r}, 'a').write(f'{{int(number)}} ')
    if number != signal.SIGHUP:
        time.sleep(0.1)
        raise SystemExit(0)
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT): signal.signal(number, note)
open({str(told)!r}, 'a').write('up ')
while True: time.sleep(0.01)
"""
    running = supervised(*server(script))
    wait_until(lambda: told.exists() and told.read_text() == "up ")
    running.send_signal(signal.SIGHUP)
    wait_until(lambda: told.read_text() == "up 1 ")
    running.send_signal(number)
    assert running.wait(10) == 0
    assert told.read_text() == f"up 1 {int(number)} "
    running.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's prctl")
def test_the_server_ends_with_a_killed_supervisor() -> None:
    running = supervised(*server("import time; time.sleep(60)"))
    wait_until(lambda: len(machine.children(running.pid)) == 1)
    (child,) = machine.children(running.pid)
    wait_until(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes())
    running.kill()
    running.communicate()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


@contextmanager
def serving(bundle: Path, state: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    code = "from service.cli import serve; serve()"
    arguments = ["--supervise", "--bundle", str(bundle), "--port", str(port)]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "TESSERA_STATE": str(state), "TESSERA_THREADS": "1"},
    )
    try:
        yield running, port
    finally:
        running.kill()
        running.wait()


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.slow
def test_a_server_that_is_killed_is_there_again_and_ends_when_told(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path) as (running, port):
        wait_until(lambda: ready(port), 60)
        (first,) = machine.children(running.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in machine.children(running.pid), 20)
        wait_until(lambda: ready(port), 60)
        running.send_signal(signal.SIGTERM)
        assert running.wait(40) == 0
        wait_until(lambda: not ready(port))


def test_more_restarts_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(Supervisor, "_once", lambda self: 1)
    monkeypatch.setattr(Supervisor, "_pause", lambda self, seconds: paused.append(seconds))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert Supervisor(["x"], restarts=7).run() == 1
    assert paused == [1, 2, 4, 8, 16, 30, 30]


def crew(folder: Path, script: str, count: int = 2) -> subprocess.Popen[str]:
    """Of workers that run a script, in which `me` says which it is and `note` tells the test."""
    code = f"""
import sys; from service.supervisor import Crew
sys.exit(Crew(sys.argv[1:], {str(folder)!r}, {count}, pause_s=0.02).run())
"""
    worker = f"""
import os, signal, sys, time
me = sys.argv[-1]
def ready(): open({str(folder / "ready.json")!r}, 'w')
told = os.open({str(folder.parent / "told")!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
def note(what): os.write(told, (what + ' ').encode())
note(me[:3])
{script}
"""
    folder.mkdir()
    command = [sys.executable, "-c", code, *server(worker)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


WAITS = """
signal.signal(signal.SIGTERM, lambda *_: (note('term'), sys.exit(0)))
signal.signal(signal.SIGHUP, lambda *_: note('hup'))
ready()
note('up')
while True: time.sleep(0.01)
"""


def told(folder: Path) -> list[str]:
    file = folder.parent / "told"
    return file.read_text().split() if file.exists() else []


def test_the_others_follow_the_first_and_all_hear_signals(tmp_path: Path) -> None:
    folder = tmp_path / "meet"
    running = crew(folder, WAITS, 3)
    wait_until(lambda: told(folder).count("up") == 3)
    assert told(folder)[:2] == ["1/3", "up"]
    running.send_signal(signal.SIGHUP)
    wait_until(lambda: told(folder).count("hup") == 3)
    running.send_signal(signal.SIGTERM)
    assert running.communicate(timeout=20)[1] == ""
    assert running.returncode == 0
    assert told(folder).count("term") == 3
    assert not folder.exists()


def test_one_that_is_killed_is_started_again_and_what_it_had_inside_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "meet"
    running = crew(folder, WAITS)
    wait_until(lambda: told(folder).count("up") == 2)
    for number in (1, 2):
        (folder / f"{number}.page").write_bytes(b"x" * 100)
    first = min(machine.children(running.pid))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: told(folder).count("up") == 3)
    assert told(folder)[-2:] == ["1/2", "up"]
    assert (folder / "1.page").read_bytes() == bytes(100)
    assert (folder / "2.page").read_bytes() == b"x" * 100
    running.send_signal(signal.SIGTERM)
    said = running.communicate(timeout=20)[1]
    assert running.returncode == 0
    assert said.count("worker 1 was killed by signal 9; it is started again in 0.02 s (1 of 5)") == 1


@pytest.mark.parametrize("status", [1, 2])
def test_a_first_that_cannot_start_ends_all(tmp_path: Path, status: int) -> None:
    folder = tmp_path / "meet"
    running = crew(folder, f"sys.exit({status})", 4)
    assert running.communicate(timeout=20)[1] == ""
    assert running.returncode == status
    assert told(folder) == ["1/4"]


def test_a_wrong_setting_later_ends_all_in_peace(tmp_path: Path) -> None:
    folder = tmp_path / "meet"
    running = crew(folder, "if me[0] == '2': sys.exit(2)\n" + WAITS)
    running.communicate(timeout=20)
    assert running.returncode == 2
    assert told(folder).count("term") == 1


def test_one_that_fails_too_often_ends_all(tmp_path: Path) -> None:
    folder = tmp_path / "meet"
    running = crew(folder, "if me[0] == '2': sys.exit(7)\n" + WAITS)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == 1
    assert told(folder).count("2/2") == 6
    assert said.count("worker 2 ended with exit code 7; it is started again in") == 5
    assert "5 restarts within 10 minutes are enough: all workers end" in said


def looks(beats: Callable[[int], int], seconds: int, still_s: float = 30.0) -> list[int]:
    """At which seconds of ten looks each a worker that has beaten so often is told to stand still."""
    pulse = Pulse(still_s)
    return [
        now for now in range(seconds) for tenth in range(10) if pulse.stopped(now + tenth / 10, pack("d", beats(now)))
    ]


def test_a_pulse_that_stands_still_is_told_once_and_late_enough() -> None:
    assert looks(lambda now: now, 200) == []
    assert looks(lambda now: now // 20, 200) == []  # slow is not still
    assert looks(lambda now: min(now, 100), 200) == [130]
    assert looks(lambda now: min(now, 50), 100, still_s=15.0) == [65]


def test_who_has_not_beaten_or_drains_is_not_judged() -> None:
    assert looks(lambda now: 0, 200) == []
    assert looks(lambda now: now if now < 50 else 0, 200) == []
    pulse = Pulse(30.0)
    assert not any(pulse.stopped(now, b"") for now in range(200))  # there is no page


def test_a_long_pause_of_the_one_who_looks_is_one_look() -> None:
    pulse = Pulse(30.0)
    assert not any(pulse.stopped(now, pack("d", 7)) for now in range(30))
    assert not pulse.stopped(86400, pack("d", 8))
    assert not any(pulse.stopped(86400 + pause, pack("d", 8)) for pause in (60, 120, 180))


def test_a_crew_kills_who_stands_still_but_not_once_all_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, started, stand_still = 1000.0, list["Process"](), {2}
    term: list[Callable[[int, None], object]] = []

    class Process:
        def __init__(self, command: list[str], **options: object) -> None:
            self.number, self.began = int(command[-1].split("/")[0]), now
            self.killed_at: float | None = None
            self.status: int | None = None
            started.append(self)

        def poll(self) -> int | None:
            beats = now if now < self.began + 20 or self.number not in stand_still else 1.0
            (tmp_path / f"{self.number}.page").write_bytes(pack("d", beats) + bytes(80))
            return self.status

        def kill(self) -> None:
            self.killed_at, self.status = now, -9

        def send_signal(self, number: int) -> None:
            pass

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 0.5
        if now == 1060:  # all end, and the drain takes a while
            stand_still.add(1)
            term[0](signal.SIGTERM, None)
        if now == 1200:
            for process in started:
                process.status = 0

    (tmp_path / "ready.json").touch()
    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep, strftime=time.strftime)
    monkeypatch.setattr("service.supervisor.time", clock)
    monkeypatch.setattr(signal, "signal", lambda number, handler: term.append(handler))
    monkeypatch.setattr(subprocess, "Popen", Process)
    assert Crew(["serve"], str(tmp_path), 2).run() == 0
    assert [process.number for process in started] == [1, 2, 2]
    assert [process.killed_at for process in started] == [None, pytest.approx(1050, abs=2), None]
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" WARNING supervisor: worker 2 stood still for 30 s and is killed")
    assert second.endswith("worker 2 was killed by signal 9; it is started again in 1 s (1 of 5)")
