"""The API explorer in a real browser, under a path and with keys: what it sends, shows and copies."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.io.encode import encode
from tests import axe
from tests.service.process import process
from tests.tiny import bands

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
ODD = 'it\'s; a,"b" $HOME `x` \\n.png'  # a file's name that a shell, and curl's form, would read otherwise
NAME = """it's <img src=x> "$HOME" @`x` \\ é"""


@pytest.fixture(scope="module")
def home(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The explorer's address on a server that wants a key and is shown under a path."""
    state = tmp_path_factory.mktemp("state")
    with process(tiny_bundle, state, "--root-path", "/shown/here", TESSERA_KEYS="me=secret") as (_, port):
        yield f"http://127.0.0.1:{port}/shown/here/docs"


@pytest.fixture
def page(home: str) -> Iterator[Any]:
    """A page; at its end nothing was wrong, and nothing was asked of anybody else."""
    asked: list[str] = []
    wrong: list[str] = []
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(viewport={"width": 1366, "height": 768})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        yield page
        browser.close()
    assert [one for one in wrong if "Failed to load resource" not in one] == []  # so they say of every 401 and 422
    assert [url for url in asked if not url.startswith((home.removesuffix("docs"), "blob:", "data:"))] == []


def _sent(page: Any, state: str = "good") -> str:
    page.click(".try button[type=submit]")
    says = page.locator(f".says[data-state={state}]")
    says.wait_for()
    return str(says.text_content())


def _copied(page: Any) -> str:
    page.click(".try button:has-text('curl')")
    page.locator(".buttons [role=status]", has_text="Copied").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def _run(command: str, folder: Path) -> bytes:
    """What a shell gets by a copied command."""
    environment = {**os.environ, "TESSERA_KEY": "secret"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, check=True, timeout=30
    )
    return done.stdout


def test_find_send_copy(page: Any, home: str, tmp_path: Path) -> None:
    page.goto(home)
    page.fill("#filter", "clusters what")  # path and summary
    page.locator("#found", has_text="1 of").wait_for()
    page.press("#filter", "Enter")
    page.locator("article h2", has_text="/clusters").wait_for()
    assert page.url == f"{home}#clusters"
    assert page.evaluate("document.activeElement.tagName") == "H2"

    page.click(".try button[type=submit]")  # the server wants a key
    page.fill("#ask-field", "wrong")
    page.press("#ask-field", "Enter")
    page.locator("#ask [role=alert]", has_text="does not know").wait_for()
    page.fill("#ask-field", "secret")
    page.press("#ask-field", "Enter")
    page.locator(".says[data-state=good]", has_text="200 OK in").wait_for()
    assert page.evaluate("sessionStorage.key_") == "secret"
    assert '"k": 5' in page.locator(".answer pre").text_content()
    assert "x-model" in page.locator(".answer .headers").first.text_content()
    assert json.loads(_run(_copied(page), tmp_path))["k"] == 5
    assert "secret" not in _copied(page)

    (tmp_path / ODD).write_bytes(encode(bands(60, 100), "png"))
    for kind in ("multipart/form-data", "application/octet-stream"):
        page.goto(f"{home}#segment")
        page.check(f"input[value='{kind}']")
        page.set_input_files(".body input[type=file]", tmp_path / ODD)
        page.select_option("#segment-query-format", "color")
        assert "200 OK" in _sent(page)
        picture = page.locator(".answer img.answered")
        assert picture.get_attribute("alt") == "The picture that was answered, 100 × 60 pixels"
        with page.expect_download() as saved:
            page.click(".answer a[download]")
        _run(_copied(page), tmp_path)
        (out,) = tmp_path.glob("segment.*")
        assert out.read_bytes() == saved.value.path().read_bytes() != b""
        out.unlink()


def test_json_bodies_refusals_and_words_that_are_no_markup(page: Any, home: str, tmp_path: Path) -> None:
    page.goto(home)
    page.evaluate("sessionStorage.key_ = 'secret'")
    page.goto(f"{home}#changeCluster")
    page.reload()
    assert "id" in _sent(page, "bad")  # is missing, and nothing was sent
    page.fill("#changeCluster-path-id", "1")
    page.fill(".json textarea", "{")
    assert "no JSON" in _sent(page, "bad")
    page.fill(".json textarea", json.dumps({"name": NAME}, ensure_ascii=False))
    assert "200 OK" in _sent(page)
    assert json.dumps(NAME, ensure_ascii=False) in page.locator(".answer pre").text_content()
    assert page.locator(".answer img").count() == 0
    assert json.loads(_run(_copied(page), tmp_path))["name"] == NAME
    page.fill(".json textarea", '{"color": "red"}')
    assert "422" in _sent(page, "bad")
    assert "#rrggbb" in page.locator(".answer .detail").text_content()

    page.goto(f"{home}#segment")  # the example is one that the server takes: a picture drawn here
    page.check("input[value='application/json']")
    assert "200 OK" in _sent(page)
    assert "characters more" in page.locator(".answer pre").text_content()  # of base64


def test_a_server_that_is_slow_or_gone(page: Any, home: str) -> None:
    page.goto(home)
    page.evaluate("sessionStorage.key_ = 'secret'")
    page.goto(f"{home}#models")
    page.route("**/models", lambda route: None)  # playwright wants a function of Python
    page.click(".try button[type=submit]")
    page.locator(".says", has_text="Sending").wait_for()
    page.click(".try button:has-text('Cancel')")
    page.locator(".says[data-state=bad]", has_text="Canceled").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Send"
    page.unroute("**/models")
    page.route("**/models", lambda route: route.abort())
    assert "does not answer" in _sent(page, "bad")
    page.unroute("**/models")
    assert "200 OK" in _sent(page)


@pytest.mark.parametrize("size", [(1366, 768), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_in_anybodys_way(page: Any, home: str, size: tuple[int, int], scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(home)
    page.evaluate("sessionStorage.key_ = 'secret'")
    page.wait_for_selector(".cards")
    assert axe.violations(page) == []
    page.goto(f"{home}#segment")
    page.click(".files button")  # a drawn street
    page.locator(".files .soft", has_text="street.png").wait_for()
    assert "200 OK" in _sent(page)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_timeout(100)
    assert axe.violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.click("#key")
    assert axe.violations(page) == []
