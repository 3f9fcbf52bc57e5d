"""What several rooms' tests share: the tiny bundle of `tests/tiny.py`, on disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models import loops
from tests.tiny import write_tiny_bundle

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """After a change of the CRF it is compiled once, before anything runs that has ten seconds for an answer."""
    if not hasattr(config, "workerinput") and not loops.ready():
        subprocess.run([sys.executable, "-c", "from models.crf import warm; warm()"], check=True, cwd=ROOT)


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
