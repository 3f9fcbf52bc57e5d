"""What several rooms' tests share: the tiny bundle of `tests/tiny.py`, on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_tiny_bundle


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
