"""What several rooms' tests share: the tiny bundle of `tests/tiny.py`, on disk, and a server of it."""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.crf.cpu import jit_cache
from service.logs import JsonLine, TextLine
from service.repository import proving
from tests.service.server import Serve, server_of
from tests.tiny import write_tiny_bundle

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """After a change of the CRF it is compiled once, before anything runs that has ten seconds for an answer."""
    if not hasattr(config, "workerinput") and not jit_cache.ready():
        subprocess.run([sys.executable, "-c", "from models.crf.cpu.warmup import warm; warm()"], check=True, cwd=ROOT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rooms with long files first: what is left at the end is small, and no core waits for another."""
    first = ("integration", "training")
    items.sort(key=lambda item: item.path.relative_to(ROOT / "tests").parts[0] not in first)


@pytest.fixture(autouse=True, scope="module")
def _what_is_there_stays() -> None:
    """An engine that opens or closes has the garbage collected, which takes half a second where torch is loaded too."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _logs_as_before() -> Iterator[None]:
    """Commands that a file's tests run in this process set up its log; the next file's tests begin without."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in [one for one in root.handlers if isinstance(one.formatter, JsonLine | TextLine)]:
        root.removeHandler(handler)


@pytest.fixture(autouse=True, scope="session")
def _proved_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A bundle that one test has had proved is not proved again for another: it takes a process, and a second."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "proofs.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proving, "_file", lambda settings: shared)
        yield


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that sorts pixels into red, green, blue, white and black (ids 0..4)."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny bundle of another name, or with another network, into this test's folder."""

    def make(name: str = "tiny", **changes: bytes) -> Path:
        return write_tiny_bundle(tmp_path / name, name=name, **changes).path

    return make


@pytest.fixture
def serve(tiny_bundle: Path, tmp_path: Path) -> Serve:
    """Starts a server of this test's own, with the settings it gives."""
    return server_of(tiny_bundle, tmp_path / "state")


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One server for a whole file's tests; those that change names use `serve`."""
    with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))() as ready:
        yield ready
