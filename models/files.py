"""Files that are there as a whole or not at all, whatever ends the process that writes them; damaged ones moved aside.

Knows nothing of what is in them.
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any
from uuid import uuid4


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Has `write` fill a file beside `path`, and moves it there in one step; a failure leaves what was there before."""
    scratch = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with scratch.open("xb") as file:
            write(file)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def reserve(path: Path) -> None:
    """Gives a new file the room on the disk that its length says. Raises OSError where there is none, and it goes.

    Whoever writes to a mapped file that has no room is ended by the system, without a word.
    """
    allocate = getattr(os, "posix_fallocate", None)  # not on macOS
    size = path.stat().st_size
    try:
        if size > shutil.disk_usage(path.parent).free:  # asking would take all there is before it is refused
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if allocate is not None and size:
            with path.open("r+b") as file:
                allocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
            return
        path.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def move_aside(path: Path, also: Sequence[str] = ()) -> Path:
    """Moves a file to the first PATH.damaged-N that is free, and returns that.

    also  suffixes of files that belong to it; they go first, so that none is left to a new file of its name
    """
    for number in count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        with suppress(FileExistsError):
            aside.open("xb").close()
            break
    for suffix in also:
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    os.replace(path, aside)
    return aside
