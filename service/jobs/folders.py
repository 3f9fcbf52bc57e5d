"""The folders of jobs on the disk: what was sent for a job, and what it has made.

Names of images are no paths here: a result's files lie under numbers made of their names, so that no name is too long,
leaves the folder or meets another one. A folder that is being filled is locked by the server that fills it.

Knows nothing of images, of HTTP, of the store.
"""

import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from service.jobs.job import Output

_UPLOAD = "upload.zip"
_LOCK = "filling"


class JobFolder:
    """Of one job.

    upload  the zip that was sent, where one was
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upload = folder / _UPLOAD

    def write(self, path: str, files: Iterable[tuple[str, bytes]]) -> tuple[Output, ...]:
        """Write what an image became: names in the result, and bytes. Raises OSError."""
        outputs = []
        for number, (name, data) in enumerate(files):
            place = self.place(path, number)
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch = place.with_suffix(".part")
            try:
                with scratch.open("wb") as file:
                    file.write(data)
                os.replace(scratch, place)
            except BaseException:
                with suppress(OSError):
                    scratch.unlink(missing_ok=True)
                raise
            outputs.append(Output(name, len(data), zlib.crc32(data)))
        return tuple(outputs)

    def sync(self, paths: Iterable[tuple[str, int]]) -> None:
        """Returns once these images' files, so many of each, are on the disk. Raises OSError."""
        for path, count in paths:
            for number in range(count):
                with self.open(path, number) as file:
                    os.fsync(file.fileno())

    def open(self, path: str, number: int) -> IO[bytes]:
        """One of an image's files."""
        return self.place(path, number).open("rb")

    def place(self, path: str, number: int) -> Path:
        """Where one of an image's files lies."""
        digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / "out" / digest[:2] / f"{digest[2:40]}-{number}"

    def delete(self) -> None:
        """All of it; what cannot be deleted now is swept later."""
        shutil.rmtree(self.folder, ignore_errors=True)


class JobFolders:
    """All of them, and who runs what is in them: of several servers on one folder the one that has the lock."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._held: IO[bytes] | None = None

    def of(self, id: str) -> JobFolder:
        """One job's; it need not be there."""
        return JobFolder(self.home / id)

    def begin(self, id: str) -> tuple[JobFolder, IO[bytes]]:
        """A new job's folder, which is being filled while the file is open. Raises OSError."""
        folder = self.of(id)
        folder.folder.mkdir(parents=True)
        lock = (folder.folder / _LOCK).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder, lock

    def take(self) -> bool:
        """Whether this server runs the jobs from now on, or does already. Raises OSError."""
        if self._held is None:
            self.home.mkdir(parents=True, exist_ok=True)
            file = (self.home / "running.lock").open("wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._held = file
        return True

    def give_back(self) -> None:
        """Another server may run the jobs."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def unfilled(self) -> list[str]:
        """The folders that nobody fills now: of them, those that no job in the store knows *after* this are nobody's.

        Raises OSError.
        """
        if not self.home.is_dir():
            return []
        folders = [entry for entry in self.home.iterdir() if entry.is_dir()]
        return [folder.name for folder in folders if not _being_filled(folder / _LOCK)]

    def free(self) -> int:
        """Bytes of the disk that are free."""
        folder = next(place for place in (self.home, *self.home.parents) if place.exists())
        return shutil.disk_usage(folder).free


def _being_filled(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
