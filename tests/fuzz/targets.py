"""What is fuzzed, each with what must hold: one of our errors or statuses, in bounded time and memory, never another.

Knows nothing of how long it goes on.
"""

import base64
import json
import re
import shutil
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from models.bundle import Bundle, BundleError
from service.api.problems import PROBLEM, STATUS
from tests.fuzz import manifests, pictures, requests
from tests.fuzz.reader import Reader
from tests.torture.process import Server

_PICTURE_S, _PICTURE_MB = 5.0, 256.0  # of a file whose image has at most a megapixel
_ANSWER_S = 10.0
_STATUSES = {200, 304, 400, 404, 405, 412, 421, 428, 431, 505, 507, *STATUS.values()} - {500}


class Broken(AssertionError):
    """What must hold did not."""


@dataclass
class Target:
    """One thing that is fuzzed.

    examples  what is drawn;  check  raises Broken, or anything;  outside  crashes of outside software, by format
    """

    name: str
    examples: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    tried: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)


@contextmanager
def picture_targets() -> Iterator[list[Target]]:
    """Files of every format, in a process apart."""
    reader = Reader()
    made: list[Target] = []

    def of(name: str, examples: st.SearchStrategy[Any]) -> None:
        target = Target(name, examples, lambda example: None)

        def check(example: tuple[str, bytes]) -> None:
            kind, data = example
            found = reader.read(data)
            target.tried[found.how] += 1
            if found.how in ("ended", "hung"):  # not an exception of ours: by format only, and nothing is shrunk
                target.outside[f"{kind}: {found.how}, {found.said}"] += 1
                return
            if found.how == "wrong":
                raise Broken(found.said)
            if found.seconds > _PICTURE_S:
                raise Broken(f"took {found.seconds:.1f} s")
            if found.mb > _PICTURE_MB:
                raise Broken(f"held {found.mb:.0f} MB")

        target.check = check
        made.append(target)

    of("pictures", pictures.spoiled(pictures.HERE))
    of("pictures apart", pictures.spoiled(pictures.APART))
    of("TIFF directories", pictures.directories())
    try:
        yield made
    finally:
        reader.close()


def answer(port: int, payload: bytes, *, whole: bool) -> bytes:
    """What a server says to these bytes: its first answer where they are a whole request, else all until it ends.

    Raises OSError.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as connection:
        heard = b""
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(payload)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
            while not (whole and _is_whole(heard, bodiless=payload.startswith(b"HEAD "))):
                if not (piece := connection.recv(65536)):
                    break
                heard += piece
        return heard


def _is_whole(heard: bytes, *, bodiless: bool) -> bool:
    head, end, body = heard.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and (bodiless or length is None or len(body) >= int(length[1]))


def server_targets(server: Server) -> list[Target]:
    """Requests to a server that runs. Its log tells of exceptions that no answer tells of."""

    def of(name: str, examples: st.SearchStrategy[bytes], *, always: bool) -> Target:
        target = Target(name, examples, lambda example: None)

        def check(payload: bytes) -> None:
            logged, began = len(server.log), time.perf_counter()
            heard = answer(server.port, payload, whole=always)
            took = time.perf_counter() - began
            if server.process.poll() is not None:
                raise Broken("the server ended")
            if trace := [line for line in server.log[logged:] if "Traceback" in line or "failed, request" in line]:
                raise Broken(f"the log says {trace[0]}")
            if took > _ANSWER_S - 1:
                raise Broken(f"took {took:.1f} s")
            if not heard:
                target.tried["closed"] += 1
                if always:
                    raise Broken("closed without an answer")
                return
            _sound(heard)
            target.tried[heard[9:12].decode("latin-1")] += 1

        target.check = check
        return target

    return [
        of("requests", requests.asked(), always=True),
        of("options", requests.segmented(), always=True),
        of("multipart", requests.form_sent(), always=True),
        of("JSON", requests.json_sent(), always=True),
        of("the wire", requests.on_the_wire(), always=False),
    ]


def _sound(heard: bytes) -> None:
    """The first answer has a status that is ours, an id, and a problem document where it refuses."""
    head, _, body = heard.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if status == 100:
        return
    if status not in _STATUSES:
        raise Broken(f"{lines[0]}: {body[:200]!r}")
    if "x-request-id" not in headers:
        raise Broken(f"{lines[0]} has no X-Request-ID")
    length = int(headers.get("content-length", "0"))
    if status >= 400 and body and length:
        if headers.get("content-type") != PROBLEM:
            raise Broken(f"{lines[0]} is {headers.get('content-type')}")
        document = json.loads(body[:length])
        if set(document) != {"type", "title", "status", "detail", "request_id"} or document["status"] != status:
            raise Broken(f"{lines[0]}: {body[:200]!r}")


def manifest_target(bundle: Path, work: Path) -> Target:
    """Bundles with a spoiled manifest, in a folder that is used again and again."""
    folder = work / "spoiled"
    shutil.copytree(bundle, folder)
    sound = json.loads((folder / "manifest.json").read_bytes())
    target = Target("bundle manifests", manifests.spoiled(sound), lambda example: None)

    def check(text: bytes) -> None:
        (folder / "manifest.json").write_bytes(text)
        began = time.perf_counter()
        try:
            loaded = Bundle.load(folder)
        except BundleError as error:
            target.tried["refused"] += 1
            if not 10 < len(str(error)) < 1000:
                raise Broken(f"its message is {str(error)!r}") from None
        else:
            target.tried["loaded"] += 1
            if loaded.centroids.shape != (len(loaded.manifest.clusters), loaded.manifest.code.dim):
                raise Broken(f"loaded, with centroids {loaded.centroids.shape}")
        if time.perf_counter() - began > 2.0:
            raise Broken(f"took {time.perf_counter() - began:.1f} s")

    target.check = check
    return target


def blob(example: Any) -> str:
    """An example as one word, for `--again`."""
    kind, data = example if isinstance(example, tuple) else ("", example)
    return base64.urlsafe_b64encode(zlib.compress(kind.encode() + b"\0" + data, 9)).decode()


def example_of(word: str) -> tuple[str, bytes]:
    """(format or nothing, bytes) of such a word."""
    kind, _, data = zlib.decompress(base64.urlsafe_b64decode(word)).partition(b"\0")
    return kind.decode(), data
