"""One server on loopback for all that speaks to sockets of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.answers import PNG
from tests.service.process import process
from tests.tiny import write_tiny_bundle


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server of the tiny bundle, which who has the key `admin` may load and unload."""
    models = tmp_path_factory.mktemp("models")
    bundle = write_tiny_bundle(models / "tiny").path
    with process(
        bundle,
        tmp_path_factory.mktemp("state"),
        TESSERA_ADMIN_KEY="admin",
        TESSERA_MODELS=os.fspath(models),
        TESSERA_ACCESS_LOG="false",
    ) as (_, port):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture file of five bands of color."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(PNG)
    return path
