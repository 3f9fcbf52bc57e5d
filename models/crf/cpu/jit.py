"""numba's compiler, told where its code is kept and that one process at a time writes there.

Knows nothing of what is compiled.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from numba import config, njit
from numba.core.caching import FunctionCache

from models.crf.cpu import jit_cache

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("tessera")

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = jit_cache.folder()  # for compiled code; None: it is kept nowhere


class _Kept(FunctionCache):  # type: ignore[misc]
    """numba's files of one function, where a damaged one is a missing one and a full disk is no failure."""

    def load_overload(self, *key: Any) -> Any:
        try:
            return super().load_overload(*key)
        except Exception as error:  # whatever unpickling says of the bytes it finds
            log.warning("the compiled code of %s is damaged (%r) and compiled anew", self._py_func.__name__, error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *found: Any) -> None:
        with suppress(OSError), _one_at_a_time():
            super().save_overload(*found)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Among all processes that keep code here: numba reads the list of what there is, and writes it with one more."""
    if FOLDER is None or fcntl is None:
        yield
        return
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compiled(function: F) -> F:
    """njit, without Python's lock, kept on disk where that is possible: see jit_cache.py."""
    made = njit(nogil=True, error_model="numpy")(function)
    if FOLDER is not None:
        before, config.CACHE_DIR = config.CACHE_DIR, str(FOLDER)
        try:
            made._cache = _Kept(function)
        finally:
            config.CACHE_DIR = before
    return made  # type: ignore[no-any-return]
