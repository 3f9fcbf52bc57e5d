"""A decoder process: it reads one file after another, each within limits of its own, until nobody asks any more.

A request is a line of JSON and the file's bytes on stdin; an answer is its length, JSON, and arrays of bytes on stdout.
Knows nothing of who asks: `models.io.decoder_pool` starts it, and ends it where an answer is no longer wanted.
"""

import json
import os
import select
import signal
import sys
import traceback
from typing import Any, BinaryIO

import numpy as np

from models import hardware
from models.errors import TesseraError
from models.io import apart
from models.io.decode import inspect
from models.io.samples import Choice, Decoded, Encoded, ImageTooLarge, Limits
from models.preprocess import InputSpec, fit
from models.types import Array

HEAD_BYTES = 4  # that the length of an answer's JSON has
NICE = 5  # the server's own work goes first
SMALLER = "send a smaller image, or a JPEG or PNG"
_KEPT_BYTES = 64 * 2**20  # work that held more gives its memory back at once


def main() -> None:
    """The process: who started it, by its id, and for how many seconds it waits for a request are the arguments."""
    apart.end_with(int(sys.argv[1]))
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group, and the server finishes its work
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a codec prints is no answer
    while select.select([sys.stdin.buffer], [], [], float(sys.argv[2]))[0] and (line := sys.stdin.buffer.readline()):
        asked = json.loads(line)
        data = _exactly(asked["bytes"])
        apart.limit(asked["granted_bytes"], asked["granted_s"])
        told, arrays = answer(asked, data)
        _unlimit()
        head = json.dumps([told, [array.shape for array in arrays]]).encode()
        _write(answers, len(head).to_bytes(HEAD_BYTES, "big") + head)
        for array in arrays:
            _write(answers, array.reshape(-1).data)
        large = told.get("working_bytes", 0) > _KEPT_BYTES
        del data, arrays
        if large:
            hardware.release_memory()


def answer(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Array]]:
    """What is told of a file, and its arrays uint8: the network's input and the picture, where they are asked for, and
    where it holds data."""
    try:
        choice = asked["choice"]
        enough = choice.pop("enough")
        bands = None if choice["bands"] is None else tuple(choice.pop("bands"))
        chosen = Choice(**{**choice, "bands": bands}, enough=enough and (lambda size: tuple(enough)))
        encoded = inspect(data, limits=Limits(**asked["limits"]), choice=chosen)
        if not asked["decode"]:
            return {"size": encoded.size, "working_bytes": encoded.working_bytes}, []
        return _decoded(encoded, asked)
    except TesseraError as error:
        return {"error": type(error).__name__, "message": str(error)}, []
    except MemoryError:
        granted = f"{asked['granted_bytes'] / 1e6:.0f} MB"
        return {
            "error": ImageTooLarge.__name__,
            "message": f"reading this file takes more than {granted}: {SMALLER}",
        }, []
    except Exception:  # of our own making: who asked logs it
        return {"failed": traceback.format_exc()}, []


def _decoded(encoded: Encoded, asked: dict[str, Any]) -> tuple[dict[str, Any], list[Array]]:
    decoded: Decoded = encoded.decode()
    told: dict[str, Any] = {"working_bytes": encoded.working_bytes, "box": None, "photo": asked["photo"], "valid": None}
    told |= {name: getattr(decoded, name) for name in ("size", "depth_rule", "pages", "orientation", "warnings")}
    arrays = []
    if asked["spec"] is not None:
        fitted = fit(decoded.image, InputSpec(**asked["spec"]), decoded.size)
        told["box"] = fitted.box
        arrays.append(fitted.pixels)
    if asked["photo"]:
        arrays.append(decoded.image)
    if decoded.valid is not None:
        told["valid"] = decoded.valid.shape
        arrays.append(np.packbits(decoded.valid, axis=1))
    return told, [np.ascontiguousarray(array) for array in arrays]


def _unlimit() -> None:
    import resource

    for which in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (hard, hard))


def _exactly(count: int) -> bytes:
    data = sys.stdin.buffer.read(count)
    if len(data) < count:  # who asked is gone
        sys.exit(0)
    return data


def _write(answers: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[answers.write(view) :]
