"""Files that are there as a whole or not at all, whatever ends the process that writes them.

Knows nothing of what is in them.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from uuid import uuid4


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], *, durable: bool = False) -> None:
    """Has `write` fill a file beside `path`, and moves it there in one step; a failure leaves what was there before.

    durable  also when the power goes: waits until the disk has it
    """
    scratch = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with scratch.open("xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
