"""A server in this process, ready."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from models.bundle import Bundle
from service.app import create_app
from service.engines import Engine
from service.repository import proving
from service.repository.proving import Prover
from service.settings import Settings

Serve = Callable[..., AbstractContextManager[TestClient]]


def server_of(bundle: Path, state: Path) -> Serve:
    """`with server_of(…)(max_mpx=1) as client`: a ready server of a bundle with these settings."""

    @contextmanager
    def start(open_engine: Callable[[Bundle], Engine] | None = None, **settings: Any) -> Iterator[TestClient]:
        given = Settings(**{"bundles": (bundle,), "state": state, "threads": 1, **settings})
        with TestClient(create_app(given, open_engine)) as client:
            deadline = time.monotonic() + 20
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline, client.get("/healthz").text
                time.sleep(0.01)
            yield client

    return start


def proved(bundle: Path, state: Path) -> Path:
    """A state folder that knows the bundle: a server in a process of its own need not prove it, for a second."""
    Prover(settings := Settings(state=state)).prove(Bundle.load(bundle))
    if state.is_file():  # a test's own, in the way of a folder
        return state
    state.mkdir(parents=True, exist_ok=True)
    if not (known := state / "proofs.json").exists():
        shutil.copyfile(proving._file(settings), known)
    return state
