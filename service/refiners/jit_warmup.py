"""JIT warm-up: the CRF's loops compiled beside the server, where this install has none, by a process of low priority.

numba stays out of the server until something is refined, and then finds the loops ready. The process ends with the
server, also where that is killed: its end of a pipe closes.

Knows nothing of requests, or of what is compiled.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from pathlib import Path

from models.crf.cpu import jit_cache, warmup
from models.deadline import DeadlineExceeded

log = logging.getLogger("tessera")

_ROOT = str(Path(__file__).resolve().parents[2])  # first on the path: a user's PYTHONPATH may hold other `models`
_CHILD = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from service.refiners.jit_warmup import compile_all; compile_all()"
)


class JitWarmup:
    """Of one server: it looks once, before it is asked anything, and compiles when it is ready to serve."""

    def __init__(self, child: str = _CHILD) -> None:
        self._command = [sys.executable, "-P", "-c", child]
        self._since: float | None = None
        self._ended = False
        self._over = asyncio.Event()
        self._over.set()

    def look(self) -> None:
        """Where code is missing and can be kept, whoever wants it waits from now on until `run` is through."""
        if jit_cache.ready():
            return
        if jit_cache.folder() is None:
            log.warning(
                "the CRF is compiled anew after each start, at its first use: its code can be kept nowhere; set"
                " NUMBA_CACHE_DIR to a folder that can be written"
            )
            return
        self._since = time.monotonic()
        self._over.clear()

    @property
    def note(self) -> str | None:
        """What to tell whoever waited in vain; None while nothing is being compiled."""
        if self._since is None:
            return None
        so_far = f"{time.monotonic() - self._since:.0f} s so far, mostly 10 to 20"
        return f"the CRF is being compiled, once on this machine ({so_far}); ask again, or use crf=fast"

    async def wait(self) -> None:
        """Until nothing is being compiled. Raises DeadlineExceeded where the server ends first."""
        await self._over.wait()
        if self._ended:
            raise DeadlineExceeded("the server ended before the CRF was compiled")

    async def run(self, labels: Iterable[int]) -> None:
        """Compiles what was missing, what so many labels need first. Cancelled, it ends the process."""
        if self._since is None:
            return
        log.info("the CRF is being compiled for this machine, once; crf=true waits. Kept in %s", jit_cache.folder())
        try:
            failure = await self._child(",".join(map(str, sorted(set(labels)))))
        except asyncio.CancelledError:
            self._ended = self._since is not None
            self._over.set()
            raise
        except Exception as error:
            log.exception("the process that compiles the CRF was lost")
            failure = type(error).__name__
        if failure is not None:
            log.warning("the CRF could not be compiled beside the server, and is at its first use: %s", failure)
        self._open()

    async def _child(self, labels: str) -> str | None:
        """Why it failed, or None."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, labels, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            return str(error)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if await process.stdout.readline():
                log.info("the CRF is compiled for the models served; the rest follows")
                self._open()
            said = (await process.stderr.read()).decode(errors="replace").strip()
            if not await process.wait():
                return None
            return said.splitlines()[-1][:200] if said else f"exit status {process.returncode}"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _open(self) -> None:
        self._since = None
        self._over.set()


def compile_all() -> None:
    """What the process does; a line on its output when the numbers of labels it was given are done."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(19)
    for labels in sys.argv[1].split(","):
        warmup.warm(int(labels))
    print("these", flush=True)
    warmup.warm()


def _end_with_the_server() -> None:
    os.read(sys.stdin.fileno(), 1)  # nobody writes there: it returns when the other end is gone
    os._exit(1)
