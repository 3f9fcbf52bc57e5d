"""A wheel in a clean environment, used as its user uses it; and, where there is no such Python, only resolved.

Knows nothing of how the wheel was built. Of answers digests are kept: wheels that segment alike have the same.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from requirements import covered, lock, pins
from requirements.release.refusal import Refusal

_CONSTRAINTS = pins.FOLDER / "serve-cpu.txt"
_TIMEOUT_S = 300
_ANSWERS = ("format=png", "format=png&crf=fast", "format=npy&crf=true", "format=rle", "format=geojson")
_TIMES = "timings_ms"  # in JSON: what differs each time
_COMPILED = "from models.native import bindings; print(bindings.compiled())"
_DIGEST = """
import hashlib, sys
from PIL import Image
image = Image.open(sys.argv[1])
print(image.size, hashlib.sha256(image.tobytes()).hexdigest())
"""


class Trial(NamedTuple):
    """What was done with a wheel: `run` or `resolved`; `labels` are a digest for each way to ask, of a run."""

    wheel: str
    python: str
    platform: str
    how: str
    labels: tuple[str, ...] = ()


def pythons() -> dict[str, Path]:
    """Of the versions that are covered, those that this machine has: version → interpreter."""
    found = {}
    for version in covered.PYTHONS:
        for path in _candidates(version):
            asked = [str(path), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
            if done.stdout.strip() == version:
                found[version] = path
                break
    return found


def _candidates(version: str) -> Iterator[Path]:
    """On the path, and among pyenv's: a shim of its own that no version answers is passed over."""
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def run(wheel: Path, release: str, python: Path, photo: Path, folder: Path, kernels: bool) -> Trial:
    """Installs a wheel and what it asks for into a new environment, and uses it there as its user would.

    release  what `tessera --version` has to say
    kernels  whether the wheel brings them; without, numpy has to do the work

    Refusal: something does not work, or is not as it was said.
    """
    say = f"{wheel.name} on {python}"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        home = Path(temporary)
        own, tessera, out = home / "bin" / "python", home / "bin" / "tessera", home / "labels"
        environment = {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home), "TESSERA_STATE": str(home / "state")}
        _call(say, [python, "-m", "venv", "--without-pip", home], environment)
        lock.uv("install", "--python", str(own), *_pinned(wheel))
        if _call(say, [tessera, "--version"], environment).split()[-1] != release:
            raise Refusal(f"{say}: `tessera --version` does not say {release}")
        if _call(say, [own, "-c", _COMPILED], environment) != str(kernels):
            raise Refusal(f"{say}: the kernels are {'missing' if kernels else 'there'}")
        _call(say, [tessera, "segment", photo, "--out", out, "--format", "png"], environment)
        (segmented,) = out.rglob("*.png")
        label_map, *others = _served(say, tessera, photo, environment)
        (home / "served.png").write_bytes(label_map)
        one, other = (_call(say, [own, "-c", _DIGEST, file], environment) for file in (segmented, home / "served.png"))
    if one != other:
        raise Refusal(f"{say}: the server's label map is not that of `tessera segment`")
    labels = (one, *(hashlib.sha256(_timeless(answer)).hexdigest() for answer in others))
    return Trial(wheel.name, python.name.removeprefix("python"), covered.here().platform, "run", labels)


def resolve(wheel: Path, python: str, place: str) -> Trial:
    """Finds a wheel for everything that a wheel asks for, on a Python and a platform that need not be here."""
    target = ("--python-platform", lock.UV_PLATFORM[place], "--python-version", python)
    with tempfile.TemporaryDirectory() as folder:
        lock.uv("install", "--dry-run", "--target", folder, *target, *_pinned(wheel))
    return Trial(wheel.name, python, place, "resolved")


def _timeless(answer: bytes) -> bytes:
    """An answer without what differs each time it is given."""
    if not answer.startswith(b"{"):
        return answer
    said = json.loads(answer)
    return json.dumps({key: value for key, value in said.items() if key != _TIMES}).encode()


def _pinned(wheel: Path) -> tuple[str, ...]:
    """A wheel with its extra for a CPU, as its own metadata asks for it, in the versions that are locked."""
    requirement = f"tessera-segmentation[cpu] @ {wheel.resolve().as_uri()}"
    return ("--only-binary", ":all:", "--constraints", str(_CONSTRAINTS), requirement)


def _served(say: str, tessera: Path, photo: Path, environment: dict[str, str]) -> list[bytes]:
    """What a server of the embedded default answers to each of _ANSWERS, and that it ends with 0 when it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    port = url.rpartition(":")[2]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([tessera, "serve", "--port", port], env=environment, cwd="/", stderr=log, stdout=log)
        try:
            _wait_for(f"{url}/readyz", server)
            answers = [_ask(f"{url}/segment?{options}", photo.read_bytes()) for options in _ANSWERS]
            server.terminate()
            status = server.wait(_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            raise Refusal(f"{say}: {error}; the server said:\n{log.read().decode(errors='replace')}") from error
        finally:
            server.kill()
            server.wait()
    if status:
        raise Refusal(f"{say}: the server ended with {status} after SIGTERM")
    return answers


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until a server is ready. OSError: it ended, or was not ready in time."""
    end = time.monotonic() + _TIMEOUT_S
    while server.poll() is None and time.monotonic() < end:
        with suppress(urllib.error.URLError, ConnectionError):
            _ask(url)
            return
        time.sleep(0.2)
    raise OSError("it ended before it was ready" if server.poll() is not None else f"not ready after {_TIMEOUT_S} s")


def _ask(url: str, body: bytes | None = None) -> bytes:
    """The body of the answer. HTTPError, an OSError: it has another status than 200."""
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=_TIMEOUT_S) as answer:
        found: bytes = answer.read()
        return found


def _call(say: str, command: list[Path | str], environment: dict[str, str]) -> str:
    """What a command prints. Refusal: it ends with another status than 0; `say` is of what."""
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode:
        raise Refusal(f"{say}: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()
