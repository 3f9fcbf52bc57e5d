"""Where the CRF's compiled loops are kept on disk, and whether they are there already.

Knows nothing of what they compute. numba is not imported: a server asks here whether there is anything to compile.

The folder is named by all that the code is made of: where its sources lie and what they say, what compiles them, for
which processor. numba by itself notices changes of the file that holds a function, not of those it calls. Nor does it
read a folder that it cannot write: what an image or another user compiled is copied.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from models import hardware

HERE = Path(__file__).parent  # every source in it counts, warmup.py with what it compiles too

_UNUSED_S = 14 * 86400.0  # after which a folder goes: other installs and processors may share the place


def folder() -> Path | None:
    """The first that can be written of NUMBA_CACHE_DIR, __pycache__ beside the sources, the user's folder for caches,
    and a folder of this user's own among the temporary files. None: each process compiles for itself.

    An empty one begins with what another of these places has complete; a half-done one is for who compiles to finish.
    """
    name = f"crf-{_made_of()}"
    for place in _places():
        with suppress(OSError):
            path = place / name
            if not any(path.glob("*")):
                place.mkdir(parents=True, exist_ok=True)
                _tidy(place)
                _adopt(path)
                path.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
            os.utime(path)
            return path
    return None


def ready() -> bool:
    """Whether everything is there, and nothing will have to be compiled."""
    path = folder()
    return path is not None and (path / "ready").exists()


def mark_ready(path: Path | None) -> None:
    """Says so from now on, of the folder that the loops were kept in."""
    if path:
        with suppress(OSError):
            (path / "ready").touch()


def _made_of() -> str:
    made = hashlib.sha256()
    for source in sorted(HERE.glob("*.py")):
        made.update(source.read_bytes())
    tools = (str(sys.implementation.cache_tag), version("numba"), version("llvmlite"), hardware.processor_details())
    made.update("\0".join([str(HERE), *tools]).encode())
    return made.hexdigest()[:16]


def _places() -> Iterator[Path]:
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given)
    yield HERE / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if home.is_absolute():
        yield home / "tessera"
    if own := _own_temporary():
        yield own


def _own_temporary() -> Path | None:
    """Among the temporary files anybody may write: what is run from there must lie where nobody else could put it."""
    with suppress(OSError):
        below = Path(tempfile.gettempdir())
        if not hasattr(os, "getuid"):  # where users have no numbers these files are each user's own
            return below / "tessera"
        path = below / f"tessera-{os.getuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o077:  # a link has every right, and is refused too
            return path
    return None


def _adopt(path: Path) -> None:
    """Makes the folder out of another place's of the same name, if one is complete: at once and as a whole."""
    for place in _places():
        given = place / path.name
        with suppress(OSError):
            if given == path or not (given / "ready").exists():
                continue
            copy = path.with_name(f"{path.name}.{uuid4().hex[:8]}")
            try:
                for source in (one for one in given.rglob("*") if one.is_file()):
                    target = copy / source.relative_to(given)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read_bytes())
                copy.rename(path)  # fails where another process was faster
                return
            finally:
                shutil.rmtree(copy, ignore_errors=True)


def _tidy(place: Path) -> None:
    """Removes what nobody has used for long."""
    for old in place.glob("crf-*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(old, ignore_errors=True)
