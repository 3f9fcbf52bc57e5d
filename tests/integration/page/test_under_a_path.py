"""The page under a path of somebody's site: told to the server, or taken off by a proxy that tells nobody."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import click, give
from tests.service.process import process

pytestmark = pytest.mark.slow
PATH = "/some/where"


@contextmanager
def stripping(port: int) -> Iterator[int]:
    """A proxy on loopback that shows a server under PATH; its port."""

    class Proxy(BaseHTTPRequestHandler):
        def do(self) -> None:
            if not self.path.startswith(PATH + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            server.request(self.command, self.path.removeprefix(PATH), body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            server.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield proxy.server_port
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.fixture(params=["told", "stripped"])
def home(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """The page's address, below PATH."""
    told = ["--root-path", PATH] if request.param == "told" else []
    with process(tiny_bundle, tmp_path / "state", *told) as (_, port):
        if told:
            yield f"http://127.0.0.1:{port}{PATH}/"
        else:
            with stripping(port) as outside:
                yield f"http://127.0.0.1:{outside}{PATH}/"


def test_all_of_the_page_works_there(open_page: OpenPage, home: str, photo: Path) -> None:
    page = open_page(home)  # which looks whether anything was asked for beside it
    assert home in page.locator("#curl-line").input_value()
    give(page, photo)
    page.get_by_role("button", name="Similar", exact=True).click()
    click(page, 0.5, 0.5)
    page.get_by_text("What is clear is like it").wait_for()
    page.get_by_role("button", name="Teach", exact=True).click()
    page.locator("#class-name:focus").fill("lake")
    page.keyboard.press("Enter")
    click(page, 0.5, 0.5)
    page.locator("#teach .share").first.wait_for()
    page.get_by_role("button", name="Clusters", exact=True).click()
    exemplar = page.locator(".cards img").first
    exemplar.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert exemplar.evaluate("one => one.naturalWidth") > 0
    page.get_by_role("button", name="Save …", exact=True).click()
    page.get_by_role("radio", name="COCO", exact=False).first.check()
    page.get_by_role("button", name="Copy as curl", exact=True).click()
    assert f"{home}segment?" in page.locator("#snippet").input_value()
    with page.expect_download() as saved:
        page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
    assert Path(saved.value.path()).stat().st_size > 100
    page.keyboard.press("Escape")
    with page.context.expect_page() as other:
        page.get_by_role("link", name="API", exact=True).click()
    other.value.get_by_role("heading", level=1).wait_for()
    assert other.value.url.startswith(f"{home}docs")
