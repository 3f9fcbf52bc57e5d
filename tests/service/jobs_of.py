"""Jobs over HTTP, as the tests of several rooms begin them and wait for them."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from models.io.encode import encode
from tests.tiny import bands

FILES = {
    "a/1.png": encode(bands(60, 100), "png"),
    "a/2.jpg": encode(bands(64, 80), "jpeg", 95),
    "b c/ü.png": encode(bands(40, 40, (4, 3, 2, 1, 0)), "png"),
}


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


ZIP = packed(FILES)


def begun(client: TestClient, content: Any = ZIP, query: str = "", **how: Any) -> str:
    answer = client.post(f"/jobs?{query}", content=content, **how)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def settled(client: TestClient, job: str, *states: str, **how: Any) -> dict[str, Any]:
    """The job, once it has one of these states."""
    deadline = time.monotonic() + 10
    while (found := client.get(f"/jobs/{job}", **how).json())["state"] not in (states or ("done",)):
        assert time.monotonic() < deadline, found
        time.sleep(0.005)
    return dict(found)


def result(client: TestClient, job: str, **how: Any) -> dict[str, bytes]:
    answer = client.get(f"/jobs/{job}/result", **how)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def kept(client: TestClient) -> list[Path]:
    """What lies in the folder of the jobs, besides the database."""
    home = client.app.state.tessera.jobs._folders.home  # type: ignore[attr-defined]
    return sorted(path for path in home.iterdir() if path.is_dir())
