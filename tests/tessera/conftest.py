"""A real server on loopback, in a thread."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from service.app import create_app
from service.settings import Settings
from tessera import Client
from tests.service.fakes import free_port


@pytest.fixture(scope="session")
def url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the tiny bundle that wants the key `secret`; the key `root` is the admin's."""
    settings = Settings(
        bundles=(tiny_bundle,),
        state=tmp_path_factory.mktemp("state"),
        models=tiny_bundle.parent,
        threads=1,
        keys="somebody=secret",
        admin_key="root",
    )
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_config=None, ws="none", lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    with Client(address) as client:
        client.wait_ready(20)
    yield address
    server.should_exit = True
    thread.join(10)
