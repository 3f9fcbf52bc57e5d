"""The servers ours is compared with, and what they need: `make peers`.

    python -m benchmarks.peers [--peers ../shared/tools/peers] [--work runs/bench] [--only naive_sync,pytriton]

The harness (../shared/tools/peers) is used as it is, by its path: it launches the peers and puts the load on. WORK gets
an environment for each peer, the photos, the networks and their bundles. Each step is optional: what fails is skipped
with a line, and what is there is not made again.

Knows nothing of the load or of the table.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import peer_bundle

HARNESS = Path("../shared/tools/peers")
WORK = Path("runs/bench")
_COMMON = ("onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Peer:
    """One server of the harness, by the name that its `run_peers.sh` knows.

    env       its environment in WORK;  packages  what that needs;  module  shows that it is installed
    """

    env: str
    packages: tuple[str, ...]
    module: str

    @property
    def package(self) -> str:
        """Whose version is told."""
        return self.packages[0].partition("[")[0]


_FASTAPI = Peer("v", ("fastapi", "uvicorn[standard]", "python-multipart", "psutil"), "fastapi")
PEERS = {
    "naive_sync": _FASTAPI,
    "naive_async": _FASTAPI,
    "litserve_b8": Peer("v_litserve", ("litserve", "python-multipart"), "litserve"),
    "pytriton": Peer("v_triton", ("nvidia-pytriton",), "pytriton"),
    "rayserve": Peer("v_ray", ("ray[serve]", "python-multipart"), "ray"),
    "bentoml": Peer("v_bento", ("bentoml", "fastapi"), "bentoml"),
    "sketch_b1": _FASTAPI,
    "sketch_b8": _FASTAPI,
}

# pytriton 0.7 brings a Python 3.11 older than the standard library it loads: its RLock has no `_recursion_count`.
_SHIM = """
# Added by `make peers`: the lock of the resource tracker, with the method that CPython 3.11.5 and later ask for.
def _counting_lock():
    import threading
    from multiprocessing import resource_tracker

    class CountingLock:
        def __init__(self):
            self._lock, self._depth = threading.RLock(), 0

        def __enter__(self):
            self._lock.acquire()
            self._depth += 1

        def __exit__(self, *error):
            self._depth -= 1
            self._lock.release()

        def _recursion_count(self):
            return self._depth

    tracker = resource_tracker._resource_tracker
    if not hasattr(tracker._lock, "_recursion_count"):
        tracker._lock = CountingLock()


_counting_lock()
"""
_SHIM_MARK = "def _counting_lock("


def installed(name: str, work: Path) -> bool:
    """Whether a peer can be launched from this work folder."""
    peer = PEERS[name]
    return any((work / peer.env / "lib").glob(f"python3*/site-packages/{peer.module}/__init__.py"))


def shimmed(source: str) -> str:
    """`pytriton/proxy/data.py` with the shim after its first docstring; the same text when it is there already."""
    if _SHIM_MARK in source:
        return source
    docstring = re.match(r'(?:#[^\n]*\n|\s)*"""(?:.|\n)*?"""\n', source)
    at = docstring.end() if docstring else 0
    return source[:at] + _SHIM + source[at:]


def prepare(harness: Path, work: Path, names: list[str]) -> int:
    """Make what is missing; returns how many steps were skipped."""
    work.mkdir(parents=True, exist_ok=True)
    data, models, bundles = work / "data", work / "models", work / "bundles"
    photos = harness.parents[1] / "data" / "camvid" / "images" / "test"

    def script(name: str, *arguments: Path) -> Callable[[], None]:
        return partial(_run, sys.executable, harness / name, *arguments)

    steps: list[tuple[str, bool, Callable[[], None]]] = [
        ("photos", any(data.glob("s320_*.jpg")), script("make_data.py", data, photos)),
        ("the ViT", (models / "labels_u8.onnx").is_file(), script("make_model.py", models, data)),
        ("the tiny network", (models / "tiny_u8.onnx").is_file(), script("make_tiny.py", models / "tiny_u8.onnx")),
    ]
    for name in peer_bundle.PEERS:
        there = (bundles / name / "manifest.json").is_file()
        steps.append((f"bundle {name}", there, partial(_bundle, name, models, bundles)))
    for name in dict.fromkeys(["naive_sync", *names]):  # the first one's environment also runs the client
        steps.append((name, installed(name, work), partial(_install, PEERS[name], work)))
    skipped = 0
    for what, there, make in steps:
        if there:
            continue
        print(f"{what} …", flush=True)
        try:
            make()
        except Exception as error:  # each is optional; the comparison goes on without it
            skipped += 1
            print(f"{what}: skipped: {str(error)[:300]}", flush=True)
    return skipped


def _bundle(name: str, models: Path, bundles: Path) -> None:
    bundle, equal = peer_bundle.write(name, models, bundles / name)
    print(f"{bundle.ref}: {equal:.6f} of the golden image's labels are the harness's")


def _install(peer: Peer, work: Path) -> None:
    env = work / peer.env
    _run(sys.executable, "-m", "venv", env)
    _run(env / "bin" / "python", "-m", "pip", "install", "--quiet", *peer.packages, *_COMMON)
    if peer.module == "pytriton":
        for file in (env / "lib").glob("python3*/site-packages/pytriton/proxy/data.py"):
            file.write_text(shimmed(file.read_text()))


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise RuntimeError(f"exit {done.returncode}: {last}")


def names(text: str) -> list[str]:
    """A list of peers from `a,b`. Raises ValueError, naming what there is."""
    asked = [part for part in text.split(",") if part]
    if unknown := [name for name in asked if name not in PEERS]:
        raise ValueError(f"no peer {unknown[0]!r}; there is {', '.join(PEERS)}")
    return asked


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=Path, default=HARNESS, help="the harness's folder")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--only", type=names, default=list(PEERS))
    given = parser.parse_args()
    if not (given.peers / "bench_peers.py").is_file():
        sys.exit(f"no harness at {given.peers}: name its folder with --peers")
    skipped = prepare(given.peers.resolve(), given.work, given.only)
    print(f"ready in {given.work}" + (f"; {skipped} skipped, see above" if skipped else ""))


if __name__ == "__main__":
    main()
