"""The CRF's code compiled beside the server: who waits, what is said meanwhile, and that the process never stays."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from models.crf.cpu import jit_cache, warmup
from models.deadline import DeadlineExceeded
from models.io.encode import encode
from service.refiners.jit_warmup import JitWarmup
from tests.service.answers import labels
from tests.tiny import bands

PNG = encode(bands(), "png")


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An install that has nothing compiled."""
    monkeypatch.setattr(jit_cache, "ready", lambda: False)
    monkeypatch.setattr(jit_cache, "folder", lambda: tmp_path)


def test_nothing_happens_where_all_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jit_cache, "ready", lambda: True)

    async def serve() -> None:
        compiling = JitWarmup(f"open({str(tmp_path / 'ran')!r}, 'w')")
        compiling.look()
        assert compiling.note is None
        await asyncio.wait_for(compiling.wait(), 1)
        await compiling.run([3])

    asyncio.run(serve())
    assert not (tmp_path / "ran").exists()


def test_where_nothing_can_be_kept_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jit_cache, "ready", lambda: False)
    monkeypatch.setattr(jit_cache, "folder", lambda: None)

    async def serve() -> None:
        compiling = JitWarmup("raise SystemExit(1)")
        compiling.look()
        await asyncio.wait_for(compiling.wait(), 1)
        await compiling.run([3])

    asyncio.run(serve())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set NUMBA_CACHE_DIR" in caplog.text


@pytest.mark.usefixtures("missing")
def test_whoever_waits_goes_on_with_the_first_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    child = f"""
import pathlib, sys, time
print("these", flush=True)
while not pathlib.Path({str(tmp_path / "go")!r}).exists(): time.sleep(0.01)
pathlib.Path({str(tmp_path / "ran")!r}).write_text(sys.argv[1])
"""

    async def serve() -> None:
        compiling = JitWarmup(child)
        compiling.look()
        assert "being compiled, once on this machine (0 s so far" in (compiling.note or "")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(compiling.wait(), 0.05)  # nothing runs before the models are there
        running = asyncio.create_task(compiling.run([27, 5, 27]))
        await asyncio.wait_for(compiling.wait(), 20)
        assert compiling.note is None
        assert not running.done()
        (tmp_path / "go").touch()
        await asyncio.wait_for(running, 20)

    asyncio.run(serve())
    assert (tmp_path / "ran").read_text() == "5,27"
    assert f"Kept in {tmp_path}" in caplog.text
    assert not [record for record in caplog.records if record.levelname != "INFO"]


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize(
    ("child", "said"),
    [("raise SystemExit('no memory')", "no memory"), ("raise SystemExit(3)", "exit status 3")],
)
def test_a_failure_is_told_and_keeps_nobody(child: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    async def serve() -> None:
        compiling = JitWarmup(child)
        compiling.look()
        await compiling.run([3])
        await asyncio.wait_for(compiling.wait(), 1)
        assert compiling.note is None

    asyncio.run(serve())
    assert f"is at its first use: {said}" in caplog.text


@pytest.mark.usefixtures("missing")
def test_a_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def serve() -> None:
        compiling = JitWarmup()
        compiling.look()
        await compiling.run([3])
        await asyncio.wait_for(compiling.wait(), 1)

    asyncio.run(serve())
    assert "is at its first use" in caplog.text


@pytest.mark.usefixtures("missing")
def test_whatever_is_lost_of_it_keeps_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(*command: str, **options: object) -> None:
        raise NotImplementedError("no child watcher")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)

    async def serve() -> None:
        compiling = JitWarmup()
        compiling.look()
        await compiling.run([3])
        await asyncio.wait_for(compiling.wait(), 1)
        assert compiling.note is None

    asyncio.run(serve())
    assert "no child watcher" in caplog.text


@pytest.mark.usefixtures("missing")
def test_a_server_that_closes_takes_the_process_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    async def serve() -> None:
        who = "f'{os.getpid()} {os.getsid(0)} -'"
        compiling = JitWarmup(f"import os, time; open({str(told)!r}, 'w').write({who}); time.sleep(60)")
        compiling.look()
        running = asyncio.create_task(compiling.run([3]))
        while not (told.exists() and told.read_text()):
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(DeadlineExceeded):
            await compiling.wait()  # a closing server begins nothing, and keeps nobody waiting

    asyncio.run(serve())
    process, session, _ = told.read_text().split()
    assert session == process  # Ctrl-C goes to the whole group, and is the server's
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def test_the_process_ends_when_the_server_is_killed() -> None:
    code = "import time; from service.refiners import jit_warmup as it; it.warmup.warm = time.sleep; it.compile_all()"
    child = subprocess.Popen([sys.executable, "-c", code, "60"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1.5)
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == 19
    child.stdin.close()
    assert child.wait(20) == 1


@pytest.mark.usefixtures("missing")
@pytest.mark.slow
def test_requests_meanwhile(serve: Any) -> None:
    warmup.warm()
    with serve(crf_timeout_s=0.5) as client:
        compiling = client.app.state.tessera.runtime.warmup
        compiling.look()
        began = time.monotonic()
        told = client.post("/segment?crf=true", content=PNG).json()
        assert time.monotonic() - began >= 0.5
        assert told["refined"] is False
        assert "being compiled" in told["warnings"][0]
        assert client.post("/segment?crf=fast", content=PNG).json()["refined"] is True
        plain = client.post("/segment?format=npy", content=PNG)
        answer = client.post("/segment?format=npy&crf=true", content=PNG)
        assert "being compiled" in answer.headers["x-warning"]
        assert (labels(answer) == labels(plain)).all()
        client.portal.call(compiling.run, [5])
        assert "x-warning" not in client.post("/segment?format=npy&crf=true", content=PNG).headers
