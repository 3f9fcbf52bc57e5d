"""One process at a time in a folder, and what a killed one leaves is taken over."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models import lock
from models.errors import UsageError
from models.lock import locked

HOLD = "import sys, pathlib; from models.lock import locked\nwith locked(pathlib.Path(sys.argv[1])): {}"


def left(folder: Path, host: str, pid: int) -> Path:
    """What a process that was killed leaves."""
    folder.mkdir(exist_ok=True)
    (folder / lock.NAME).write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-01 00:00:00"}))
    return folder


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    hold = HOLD.format("print(flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        told = rf"process {other.pid} on {socket.gethostname()} .* \(kill {other.pid}\)"
        with pytest.raises(UsageError, match=told), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):  # the file that it left names nobody who lives
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def test_a_number_that_another_process_was_given_holds_nothing(tmp_path: Path) -> None:
    with locked(left(tmp_path / "run", socket.gethostname(), os.getppid())):
        pass


def test_another_machine_holds_it_while_it_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left(tmp_path / "run", "elsewhere", 1)
    with pytest.raises(UsageError, match=r"process 1 on elsewhere .* this ends 120 s after it did"), locked(folder):
        pass
    os.utime(folder / lock.NAME, (0, 0))
    with locked(folder):
        monkeypatch.setattr(lock, "_RENEWED_EVERY_S", 0.0)
    monkeypatch.setattr(lock, "_RENEWED_EVERY_S", 0.01)
    with locked(folder):
        os.utime(folder / lock.NAME, (0, 0))
        for _ in range(200):
            if (folder / lock.NAME).stat().st_mtime:
                break
            lock.time.sleep(0.01)
        assert (folder / lock.NAME).stat().st_mtime > 0


def test_where_the_file_system_has_no_locks_the_number_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_flock", lambda file: None)
    with pytest.raises(UsageError, match="is in use"), locked(left(tmp_path / "a", socket.gethostname(), os.getpid())):
        pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with locked(left(tmp_path / "b", socket.gethostname(), gone.pid)):
        pass


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "run.json").touch()
    assert (tmp_path / "a" / "b" / "run.json").exists()
