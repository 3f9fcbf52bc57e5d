"""Images are fetched from the one Label Studio that was named, and from nowhere else."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.errors import TesseraError
from service.api.protocols.label_studio import fetching
from service.api.protocols.label_studio.task_images import TaskImages
from service.settings import SettingsError
from tests.service.answers import PNG
from tests.service.api.protocols.label_studio.test_routes import asking, predicted
from tests.service.server import Serve

KEY = "0123456789abcdef"
TOKEN = "head.body.signature"


class LabelStudio(BaseHTTPRequestHandler):
    """Hands out /data/upload/1/photo.png to who has the key, or the access that a token is changed for."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["authorization"]))
        if self.headers["authorization"] not in (f"Token {KEY}", "Bearer access"):
            self._answer(403)
        elif self.path.startswith(("/data/upload/1/photo.png", "/ls/data/local-files/?d=photo.png")):
            self._answer(200, PNG)
        elif self.path == "/data/away":
            self._answer(302, location="http://127.0.0.1:1/data/photo.png")
        elif self.path == "/data/slow":
            time.sleep(0.3)
            with suppress(BrokenPipeError):
                self._answer(200)
        elif self.path == "/data/large":
            self._answer(200, bytes(2**20))
        else:
            self._answer(404)

    def do_POST(self) -> None:
        self.seen.append((self.path, None))
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = self.path == "/api/token/refresh/" and sent == {"refresh": TOKEN}
        self._answer(200, b'{"access": "access"}') if known else self._answer(401)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def label_studio() -> Iterator[str]:
    LabelStudio.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), LabelStudio) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(images: TaskImages, *addresses: str) -> list[bytes]:
    async def work() -> list[bytes]:
        async with images.open() as opened:
            return [await opened.read(address, lambda count: None) for address in addresses]

    return asyncio.run(work())


def refused(images: TaskImages, address: str) -> str:
    with pytest.raises(TesseraError) as error:
        read(images, address)
    return str(error.value)


def test_paths_and_addresses_of_it_are_fetched_with_the_key(label_studio: str) -> None:
    images = TaskImages(label_studio, KEY)
    path = "/data/upload/1/photo.png"
    assert read(images, path, label_studio + path, f"{path}?x=%2F") == [PNG] * 3
    assert read(TaskImages(f"{label_studio}/ls/", KEY), "/data/local-files/?d=photo.png") == [PNG]
    assert LabelStudio.seen[-1] == ("/ls/data/local-files/?d=photo.png", f"Token {KEY}")


def test_a_personal_access_token_is_changed_for_an_access_once(label_studio: str) -> None:
    LabelStudio.seen.clear()
    path = "/data/upload/1/photo.png"
    assert read(TaskImages(label_studio, TOKEN), path, path) == [PNG, PNG]
    assert LabelStudio.seen == [("/api/token/refresh/", None), (path, "Bearer access"), (path, "Bearer access")]
    assert "does not let the key" in refused(TaskImages(label_studio, "a.b.c"), path)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/data/upload/1/photo.png",
        "http://169.254.169.254/data/latest",
        "HOST@example.org/data/x",
        "s3://bucket/data/photo.png",
        "ftp://127.0.0.1/data/x",
        "HOST/api/users",
        "HOST/data/../api/users",
        "HOST/data/%2e%2e/api/users",
        "HOST/data/%252e%252e/api/users",
        "HOST/data//example.org",
        "HOST/data/..\\api",
        "/api/users",
        "data/upload/1/photo.png",
        "http://[::1/data/x",
        "http://xn--%/data/x",
        "http://xn--%0/data/x",
        "//127.0.0.1/data/x",
        "http://user:key@127.0.0.1/data/x",
        "HOST/tasks/1/annotations/",
        "HOST/data/" + "x" * 9000,
        "\x00",
        "",
    ],
)
def test_nothing_else_is(label_studio: str, address: str) -> None:
    LabelStudio.seen.clear()
    assert "the task's image is at" in refused(TaskImages(label_studio, KEY), address.replace("HOST", label_studio))
    assert LabelStudio.seen == []


def test_what_it_says_is_told(label_studio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = TaskImages(label_studio, KEY, max_bytes=2**16)
    assert "a redirect (302), which is not followed" in refused(images, "/data/away")
    assert "answered 404" in refused(images, "/data/none")
    assert "does not let the key" in refused(TaskImages(label_studio, "wrong"), "/data/upload/1/photo.png")
    assert "more than 0 MiB (TESSERA_MAX_BYTES)" in refused(images, "/data/large")
    assert "set TESSERA_LABEL_STUDIO_URL" in refused(TaskImages(), "/data/upload/1/photo.png")
    assert "is TESSERA_LABEL_STUDIO_URL right?" in refused(TaskImages("http://127.0.0.1:1"), "/data/photo.png")
    monkeypatch.setattr(fetching, "_FETCH_S", 0.1)
    assert "not within 0.1 s" in refused(images, "/data/slow")


def test_files_below_a_root_are_read(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "a b").mkdir(parents=True)
    (root / "a b" / "photo.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    images = TaskImages(roots=[root])
    assert read(images, f"file://{root}/a%20b/photo.png", "/data/local-files/?d=a%20b/photo.png") == [PNG] * 2
    for address in (f"file://{tmp_path}/secret.png", f"file://{root}/../secret.png", "/data/local-files/?d=out.png"):
        assert "is not below a folder of TESSERA_ROOTS" in refused(images, address)
    assert "is no regular file" in refused(images, f"file://{root}/a%20b")
    assert "more than 0 MiB" in refused(TaskImages(roots=[root], max_bytes=10), "/data/local-files/?d=a b/photo.png")
    assert "set TESSERA_ROOTS" in refused(TaskImages(), f"file://{root}/a%20b/photo.png")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("label-studio", ""),
        ("ftp://h", ""),
        ("http://", ""),
        ("http://h/?a=b", ""),
        ("http://u:p@h", ""),
        ("", "key"),
        ("http://h:x", ""),
    ],
)
def test_settings_that_cannot_be_used_are_named(url: str, key: str) -> None:
    with pytest.raises(SettingsError, match="TESSERA_LABEL_STUDIO_"):
        TaskImages(url, key)


def test_tasks_of_a_project(label_studio: str, serve: Serve) -> None:
    with serve(label_studio_url=label_studio, label_studio_key=KEY) as client:
        first, second = predicted(client, asking("/data/upload/1/photo.png", "/data/away"))
        assert len(first["result"]) == 5
        assert "redirect" in second["error"]
        assert KEY not in str(second)
