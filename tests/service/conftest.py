"""A server in this process, on the tiny bundle, ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle, Encoder
from service.app import create_app
from service.settings import Settings

Serve = Callable[..., AbstractContextManager[TestClient]]


def server_of(bundle: Path, state: Path) -> Serve:
    """`with server_of(…)(max_mpx=1) as client`: a ready server of a bundle with these settings."""

    @contextmanager
    def start(open_encoder: Callable[[Bundle], Encoder] | None = None, **settings: Any) -> Iterator[TestClient]:
        given = Settings(**{"bundles": (bundle,), "state": state, "threads": 1, **settings})
        with TestClient(create_app(given, open_encoder)) as client:
            deadline = time.monotonic() + 20
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline, client.get("/healthz").text
                time.sleep(0.01)
            yield client

    return start


@pytest.fixture
def serve(tiny_bundle: Path, tmp_path: Path) -> Serve:
    """Starts a server of this test's own, with the settings it gives."""
    return server_of(tiny_bundle, tmp_path / "state")


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One server for a whole file's tests; those that change names use `serve`."""
    with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))() as ready:
        yield ready
