"""A pool of decoder processes: what no header bounds, and no call of a codec can be asked to stop, is read in them.

Whoever asks does so from a thread, and waits there; there are as many processes as threads that ask at once. They are
started when they are needed, end by themselves when nobody asks for a while, and are ended, with what they started,
where an answer is no longer wanted. They end with this process, however it ends.

Knows nothing of formats, of networks, of HTTP.
"""

import contextlib
import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from models.deadline import Deadline, DeadlineExceeded
from models.io import samples
from models.io.decoder_process import HEAD_BYTES, SMALLER
from models.io.samples import Choice, Decoded, Encoded, ImageError, ImageTooLarge, Limits, Size
from models.preprocess import Fit, InputSpec
from models.types import WHOLE, Array

_TICK_S = 0.05  # how soon it is noticed that an answer is no longer wanted
_BESIDE_BYTES = 256 * 2**20  # of address space, that a decoder's code and its file may take beside the granted bytes
_LEAST_S, _BYTES_A_S = 2, 8_000_000  # of a core, that any file is granted, and one more for so many bytes it works on
_PIPE_BYTES, _MOST_TOLD = 2**20, 2**22
_END_S = 1.0  # for a process that has closed its pipes
_SET_PIPE_SIZE = 1031  # fcntl's F_SETPIPE_SZ, Linux
_log = logging.getLogger(__name__)


class _Gone(Exception):
    """The process ended before it answered."""


class Reading(NamedTuple):
    """What a decoder process makes of a file: the picture, without a pixel where it was not wanted, and the network's
    input, where that was."""

    decoded: Decoded
    fitted: Fit | None


class DecoderPool:
    """Decoder processes for the threads that ask. Its methods block, and raise DeadlineExceeded where the answer is no
    longer wanted, which ends the process.

    idle_s  without a request, after which a process ends by itself
    """

    def __init__(self, idle_s: float = 60.0) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()  # of all that follows
        self._closed = False
        self._all: set[_Process] = set()
        self._idle: list[_Process] = []  # who answered last is asked next: the others may end

    def inspect(self, data: bytes, limits: Limits, choice: Choice, until: Deadline) -> Encoded:
        """As `models.io.decode.inspect` has it. Its `decode` does so in a process as well.

        Raises what that raises, and ImageTooLarge where the header alone takes more memory or time than is granted.
        """
        told, _ = self._ask(data, limits, choice, limits.max_held_bytes, until, decode=False)
        size = _size(told["size"])
        limits.check_size(*size)
        working = int(told["working_bytes"])
        found = Encoded(size, working, lambda: self.read(data, limits, choice, found, until).decoded, math.inf)
        return found

    def read(
        self,
        data: bytes,
        limits: Limits,
        choice: Choice,
        encoded: Encoded,
        until: Deadline,
        *,
        spec: InputSpec | None = None,
        photo: bool = True,
    ) -> Reading:
        """The picture of a file whose header was read, and what a network is given of it.

        encoded  what its header said
        spec     of the network's input;  photo  whether the picture is wanted, too

        Raises what `encoded.decode` raises, and ImageTooLarge for more memory or time than the header bounds.
        """
        enough = choice.enough and list(choice.enough(encoded.size))
        told, arrays = self._ask(
            data, limits, choice, encoded.working_bytes, until, decode=True, photo=photo, spec=spec, enough=enough
        )
        size, taken = _size(told["size"]), iter(arrays)
        limits.check_size(*size)
        fitted = None if spec is None else Fit(next(taken), size, tuple(told["box"] or WHOLE))
        image = next(taken) if photo else np.empty((0, 0, 3), np.uint8)
        valid = None
        if told["valid"] is not None:
            height, width = _size(told["valid"])
            valid = np.unpackbits(next(taken), axis=1, count=width).reshape(height, width).view(bool)
        facts = {name: told[name] for name in ("depth_rule", "pages", "orientation")}
        return Reading(Decoded(image, valid, size, **facts, warnings=tuple(told["warnings"])), fitted)

    def close(self) -> None:
        """Ends all processes, and what they are doing."""
        with self._lock:
            self._closed = True
            for process in self._idle:
                process.end(kill=True)
            for process in self._all.difference(self._idle):  # who waits for it lets it go
                process.kill()
            self._idle.clear()

    def _ask(
        self,
        data: bytes,
        limits: Limits,
        choice: Choice,
        working_bytes: int,
        until: Deadline,
        *,
        decode: bool,
        photo: bool = False,
        spec: InputSpec | None = None,
        enough: list[int] | None = None,
    ) -> tuple[dict[str, Any], list[Array]]:
        granted_s = _LEAST_S + working_bytes // _BYTES_A_S
        granted_bytes = _BESIDE_BYTES + limits.max_held_bytes + working_bytes
        asked = {
            "bytes": len(data),
            "limits": asdict(limits),
            "choice": {
                "depth": choice.depth,
                "page": choice.page,
                "bands": choice.bands,
                "level": choice.level,
                "enough": enough,
            },
            "decode": decode,
            "photo": photo,
            "spec": None if spec is None else spec.model_dump(),
            "granted_bytes": granted_bytes,
            "granted_s": granted_s,
        }
        while True:
            until.check()
            process, used = self._take()
            try:
                told, arrays = process.ask(asked, data, until, limits)
            except _Gone:
                code = self._drop(process, kill=False)
                if used and code == 0:  # it had waited long enough, and left as it was asked
                    continue
                if self._closed:
                    raise DeadlineExceeded("the server is ending") from None
                raise _ended(code, granted_bytes, granted_s) from None
            except BaseException:
                self._drop(process, kill=True)
                raise
            with self._lock:
                if not self._closed:
                    self._idle.append(process)
                    break
            self._drop(process, kill=True)
            break
        if "failed" in told:
            _log.error("a decoder process failed: %s", told["failed"])
            raise ImageError("this file could not be read here; send it as JPEG or PNG")
        if "error" in told:
            raise _ERRORS.get(told["error"], ImageError)(told["message"])
        return told, arrays

    def _take(self) -> "tuple[_Process, bool]":
        """A process, and whether it was used before."""
        with self._lock:
            if self._closed:
                raise DeadlineExceeded("the server is ending")
            while self._idle:
                if (process := self._idle.pop()).alive:
                    return process, True
                process.end(kill=False)
                self._all.discard(process)
            process = _Process(self._idle_s)
            self._all.add(process)
            return process, False

    def _drop(self, process: "_Process", *, kill: bool) -> int:
        """Waits until a process has ended; its exit code."""
        with self._lock:
            self._all.discard(process)
        return process.end(kill=kill)


_ERRORS: dict[str, type[ImageError]] = {
    kind.__name__: kind for kind in (ImageError, ImageTooLarge, samples.UnsupportedImage, samples.NoSuchPart)
}


def _size(told: Any) -> Size:
    height, width = told
    return int(height), int(width)


def _ended(code: int, granted_bytes: int, granted_s: int) -> ImageError:
    """Why a process with this exit code is gone, which nobody ended here."""
    if code == -signal.SIGXCPU:
        return ImageTooLarge(f"reading this file takes more than {granted_s} s of a core: {SMALLER}")
    if code == -signal.SIGKILL:
        return ImageTooLarge(f"reading this file takes more memory than there is: {SMALLER}")
    _log.warning("a decoder process ended by itself, with %d", code)
    return ImageError(
        f"the file is damaged, or asks its decoder for more than {granted_bytes / 1e6:.0f} MB: send it as JPEG or PNG"
    )


class _Process:
    """One, starting."""

    def __init__(self, idle_s: float) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from models.io.decoder_process import main; main()"
        few = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(os.getpid()), str(idle_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **few},
            process_group=0,  # what it starts ends with it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, asked: dict[str, Any], data: bytes, until: Deadline, limits: Limits
    ) -> tuple[dict[str, Any], list[Array]]:
        """What is told, and the arrays. Raises _Gone, DeadlineExceeded."""
        self._send(json.dumps(asked).encode() + b"\n", until)
        self._send(data, until)
        length = int.from_bytes(self._receive(HEAD_BYTES, until), "big")
        if length > _MOST_TOLD:
            raise _Gone
        told, shapes = json.loads(self._receive(length, until))
        if sum(math.prod(shape) for shape in shapes) > 4 * limits.max_held_bytes:
            raise ImageTooLarge(f"this picture takes more than {limits.max_held_bytes / 1e6:.0f} MB: {SMALLER}")
        return told, [
            np.frombuffer(self._receive(math.prod(shape), until), np.uint8).reshape(shape) for shape in shapes
        ]

    def kill(self) -> None:
        """Ends it, and what it started."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, *, kill: bool) -> int:
        """Waits until it is gone, ended or by itself, and lets its pipes go; its exit code."""
        if kill:
            self.kill()
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def _send(self, data: bytes, until: Deadline) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._in, select.POLLOUT, until)
            with contextlib.suppress(BlockingIOError):
                try:
                    view = view[os.write(self._in, view) :]
                except BrokenPipeError:
                    raise _Gone from None

    def _receive(self, count: int, until: Deadline) -> bytearray:
        found = bytearray(count)
        view = memoryview(found)
        while view:
            self._wait(self._out, select.POLLIN, until)
            with contextlib.suppress(BlockingIOError):
                read = os.readv(self._out, [view])
                if not read:
                    raise _Gone
                view = view[read:]
        return found

    def _wait(self, pipe: int, event: int, until: Deadline) -> None:
        """Until a pipe is ready, or has nobody at its other end."""
        poll = select.poll()
        poll.register(pipe, event)
        while not poll.poll(1000 * _TICK_S):
            until.check()
