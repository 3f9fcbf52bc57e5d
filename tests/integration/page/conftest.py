"""What the page's journeys share: a browser, a server of the tiny bundle, pages that must not complain.

Skipped where there is no chromium.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.io.encode import encode
from tests.service.process import process
from tests.tiny import bands

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")  # while it is there its event loop runs, and no test of another file could have one
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    with driver.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        opened = running.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the tiny bundle and a state folder of this file's own."""
    quiet = {"TESSERA_ACCESS_LOG": "false"}  # nobody reads its log: a full pipe would hold it up
    with process(tiny_bundle, tmp_path_factory.mktemp("served") / "state", **quiet) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """`open_page(home, width=390, color_scheme="dark")`: a page in a browser profile of its own.

    At the end of the test none of them may have had an error in its script or asked anything of another host.
    """
    contexts, wrong, asked = [], [], []

    def complain(message: Any) -> None:  # what the server refuses is a line of the console, too
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            wrong.append(message.text)

    def start(home: str, width: int = 1366, height: int = 768, **profile: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **profile)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", complain)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append((home, request.url)))
        page.goto(home)
        return page

    yield start
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for home, url in asked if not url.startswith((home, "blob:", "data:"))] == []


@pytest.fixture
def page(open_page: OpenPage, served: str) -> Any:
    """The page of `served` at 1366×768."""
    return open_page(served)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A drawn PNG of 100×60: upright bands red, green, blue, white, black."""
    path = tmp_path / "photo.png"
    path.write_bytes(encode(bands(60, 100), "png"))
    return path
