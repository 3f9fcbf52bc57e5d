"""Pictures read in a process of their own: what outside codecs do to it is told by format, never by input.

Knows nothing of how the files were made.
"""

import json
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
_CODE = "from tests.fuzz.reader import main; main()"
_LIMIT_S = 30.0


class Outcome(NamedTuple):
    """What reading one file came to.

    how      `shown`, `refused` (one of our errors), `wrong` (anything else of ours), `ended` (the process died),
             `hung`; the last two are no exception of ours
    said     the error, the shape, or the signal;  seconds  it took;  mb  the most it held beyond what it held before
    """

    how: str
    said: str
    seconds: float = 0.0
    mb: float = 0.0


class Reader:
    """A process that reads one file after the other; a new one is started where it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, data: bytes) -> Outcome:
        """One file."""
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(_LIMIT_S, process.kill)
        late.start()
        try:
            process.stdin.write(struct.pack(">I", len(data)) + data)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        hung = not late.is_alive()
        late.cancel()
        if line:
            return Outcome(*json.loads(line))
        self.close()
        return Outcome("hung" if hung else "ended", f"exit code {process.returncode}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = None


def outcome(data: bytes) -> tuple[str, str]:
    """`shown`, `refused` or `wrong`, and what is to be said of it."""
    from models.io.decode import decode
    from models.io.samples import ImageError
    from tests.fuzz.pictures import LIMITS

    try:
        shown = decode(data, limits=LIMITS)
    except ImageError as error:
        sentence = str(error)
        short = 10 < len(sentence) < 600 and sentence.isprintable()
        return ("refused", type(error).__name__) if short else ("wrong", f"its message is {sentence!r}")
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    image, valid = shown.image, shown.valid
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        return "wrong", f"the image is {image.dtype} {image.shape}"
    if image.shape[0] * image.shape[1] > LIMITS.max_mpx * 1e6:
        return "wrong", f"{image.shape} is over the limit"
    if valid is not None and (valid.shape != image.shape[:2] or valid.dtype != np.bool_):
        return "wrong", f"the valid pixels are {valid.dtype} {valid.shape}"
    return "shown", f"{image.shape}"


def _held_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """The other process: files on stdin, each behind its length; an Outcome a line on stdout."""
    while head := sys.stdin.buffer.read(4):
        data = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
        Path("/proc/self/clear_refs").write_text("5")
        before, began = _held_mb("VmRSS:"), time.perf_counter()
        how, said = outcome(data)
        found = Outcome(how, said, time.perf_counter() - began, max(0.0, _held_mb("VmHWM:") - before))
        print(json.dumps(found), flush=True)
