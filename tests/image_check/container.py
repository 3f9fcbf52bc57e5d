"""Containers of a mounted image, run by crun as Docker and Kubernetes would run them if they were told to be strict.

The root is read-only, there is no capability and no new privilege, the user is the image's own; a folder is the volume.
The network is this machine's. Knows nothing of what runs in them. Needs Linux, root, and crun.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from tests.image_check.image import Image

_RUN_S, _STOP_S = 900.0, 60.0
# crun wants control groups of one version or the other, whatever it is told; it needs none of them here.
_APART = 'mount -t tmpfs tmpfs /sys/fs/cgroup 2>/dev/null; exec "$@"'


class Running(NamedTuple):
    """A container under way."""

    process: subprocess.Popen[bytes]
    state: Path
    name: str
    log: Path
    user: str

    def stop(self, wait_s: float = _STOP_S) -> int:
        """Sends what `docker stop` sends; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(wait_s)

    def signal(self, number: int) -> None:
        """To the first process in it."""
        os.kill(self._pid(), number)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Another command in it, as its user."""
        return subprocess.run(
            _crun(self.state, "exec", "--user", self.user, self.name, *command),
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_S,
        )

    def _pid(self) -> int:
        said = subprocess.run(_crun(self.state, "state", self.name), capture_output=True, check=True, timeout=30)
        return int(json.loads(said.stdout)["pid"])


@contextmanager
def running(
    image: Image, work: Path, command: Sequence[str], volumes: Mapping[str, Path], **environment: str
) -> Iterator[Running]:
    """A container of the image; ended, if it has not ended, when the block is left.

    command      arguments of the image's entry point
    volumes      path in the container → folder here; who runs in it has to own what is to be written
    """
    name = f"tessera-{uuid4().hex[:8]}"
    bundle, state = work / name, work / "crun"
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(specification(image, command, volumes, environment)))
    log = bundle / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            _crun(state, "run", "--bundle", str(bundle), name), stdout=written, stderr=subprocess.STDOUT
        )
    container = Running(process, state, name, log, str(image.config["User"]))
    try:
        yield container
    finally:
        if process.poll() is None:
            subprocess.run(_crun(state, "delete", "--force", name), capture_output=True, check=False, timeout=30)
            process.wait(_STOP_S)


def output(image: Image, work: Path, command: Sequence[str], volumes: Mapping[str, Path]) -> str:
    """What a container prints that ends by itself. AssertionError: it does not, or with another code than 0."""
    with running(image, work, command, volumes) as container:
        try:
            status = f"ended with {container.process.wait(_RUN_S)}"
        except subprocess.TimeoutExpired:
            status = f"has not ended after {_RUN_S:.0f} s"
        said = container.log.read_text()
    assert status == "ended with 0", f"{' '.join(command)} {status}:\n{said}"
    return said


def specification(
    image: Image, command: Sequence[str], volumes: Mapping[str, Path], environment: Mapping[str, str]
) -> dict[str, object]:
    """The runtime specification's config.json."""
    uid, _, gid = str(image.config["User"]).partition(":")
    own = [
        {"destination": to, "source": str(here), "type": "bind", "options": ["bind", "rw"]}
        for to, here in volumes.items()
    ]
    none: list[str] = []
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(uid), "gid": int(gid or uid)},
            "args": [*image.config["Entrypoint"], *command],
            "env": [*image.config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": image.config.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), none),
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
            *own,
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]},
    }


def volume(folder: Path, image: Image) -> Path:
    """A new folder that the image's user owns, as Docker makes a volume for it."""
    folder.mkdir(parents=True)
    uid, _, gid = str(image.config["User"]).partition(":")
    os.chown(folder, int(uid), int(gid or uid))
    return folder


def wait_until(what: str, met: Callable[[], bool], seconds: float, container: Running) -> float:
    """Seconds that it took. AssertionError: the container ended, or it took too long."""
    begun = time.monotonic()
    while not met():
        said = container.log.read_text()[-4000:]
        assert container.process.poll() is None, f"the container ended before it was {what}:\n{said}"
        assert time.monotonic() - begun < seconds, f"not {what} after {seconds:.0f} s:\n{said}"
        time.sleep(0.1)
    return time.monotonic() - begun


def _crun(state: Path, *arguments: str) -> list[str]:
    crun = ["crun", "--root", str(state), "--cgroup-manager=disabled", *arguments]
    return ["unshare", "--mount", "sh", "-c", _APART, "sh", *crun]
