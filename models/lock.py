"""One process at a time in a folder: a file that says which.

Knows nothing of what is done there. The system's own lock (flock) tells whether a process of this machine lives,
whatever its number was given to since; across machines that share a folder the file's time does, which its holder
renews. A file that a process left when it was killed is taken over.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from models.errors import UsageError

NAME = "run.lock"
_RENEWED_EVERY_S = 20.0
_DEAD_AFTER_S = 120.0  # without a sign of life from another machine


@contextmanager
def locked(folder: Path, *, doing: str = "trains") -> Iterator[None]:
    """Holds the folder, which is made where it is not there, until the block ends. Raises UsageError: it is in use.

    doing  what its holder does, for people who are told of it

    A folder that is empty afterwards and was made here is removed again.
    """
    made = _make(folder)
    path = folder / NAME
    file = _open(path)
    stop = threading.Event()
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "doing": doing,
        }
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(holder).encode(), 0)
        threading.Thread(target=_renew, args=(path, stop), daemon=True).start()
        yield
    finally:
        stop.set()
        path.unlink(missing_ok=True)
        os.close(file)
        for one in made:
            with suppress(OSError):  # not empty: the run began
                one.rmdir()


def _make(folder: Path) -> list[Path]:
    """Makes a folder and those above it; the ones that were made, the innermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _open(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            shared = _flock(file)
            holder = _holder(file)
            if holder and (shared is False or _lives(holder, path, known=shared is not None)):
                raise UsageError(_refusal(path, holder))
            if shared is False:  # by one that has not yet said its name, or just ended
                time.sleep(0.05)
            elif os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder ended meanwhile, and took the file along


def _flock(file: int) -> bool | None:
    """Whether the system's lock was had; None: this file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        return None
    return True


def _holder(file: int) -> dict[str, Any] | None:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"pid", "host", "since"} <= found.keys() else None


def _lives(holder: dict[str, Any], path: Path, *, known: bool) -> bool:
    """Whether the process that a file names may be alive. known: on this machine the system's lock has told already."""
    if holder["host"] != socket.gethostname():
        return _now(path.parent) - path.stat().st_mtime < _DEAD_AFTER_S
    if known:
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now(folder: Path) -> float:
    """The time by the clock that stamps the folder's files, which on a shared one is not this machine's."""
    probe = folder / f".{NAME}.{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _renew(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_RENEWED_EVERY_S):
        with suppress(OSError):
            os.utime(path)


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    doing = holder.get("doing", "trains")
    said = f"{path.parent} is in use: process {holder['pid']} on {holder['host']} {doing} there since {holder['since']}"
    if holder["host"] == socket.gethostname():
        return f"{said}; wait for it, end it (kill {holder['pid']}), or name another --out"
    return f"{said}; wait for it, or name another --out. If it is gone, this ends {_DEAD_AFTER_S:.0f} s after it did"
