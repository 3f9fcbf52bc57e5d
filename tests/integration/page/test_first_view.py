"""The page before a photo, and what it says of the server: small, and right when things change."""

import gzip
import io
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.io.encode import encode
from service.app import WEB
from tests.integration.page.steps import give, names
from tests.service.fakes import wait_until
from tests.service.process import process
from tests.tiny import bands, write_tiny_bundle

pytestmark = pytest.mark.slow
FIRST_VIEW_BYTES = 60_000


def test_the_first_view_is_small(open_page: Callable[..., Any], served: str) -> None:
    asked: list[str] = []
    page = open_page(served)
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.locator(".sample").nth(3).wait_for()
    page.locator("[data-status=queue]").wait_for()
    fetched = {url.removeprefix(served) for url in asked if url.startswith(served)}
    files = {"web/index.html"} | {name for name in fetched if name.startswith("web/")}
    sizes = {name: len(gzip.compress((WEB / name.removeprefix("web/")).read_bytes(), 6)) for name in files}
    assert {"web/main.js", "web/style.css", "web/strings/en.js", "web/drawn.js"} <= set(sizes)
    assert "web/downloads.js" not in sizes
    print(sorted((size, name) for name, size in sizes.items()))
    print(f"first view: {sum(sizes.values())} bytes in {len(sizes)} files, gzip -6")
    assert sum(sizes.values()) < FIRST_VIEW_BYTES


def test_a_drawn_street_is_tried_with_one_click(open_page: Callable[..., Any], served: str) -> None:
    pages = [open_page(served) for _ in range(2)]
    pixels = []
    for page in pages:
        sample = page.locator(".sample", has_text="Parked cars")
        pixels.append(sample.locator("canvas").evaluate("c => c.toDataURL()"))
        sample.click()
        page.wait_for_selector("#legend li")
        page.locator("[data-status=size]", has_text="640 × 480").wait_for()
    assert pixels[0] == pixels[1]  # the same for everybody
    assert len(pixels[0]) > 20_000  # and not empty


def test_what_the_model_has_seen_and_a_line_for_the_shell(page: Any, photo: Path) -> None:
    page.locator("#about-model", has_text="tiny tells 5 clusters apart").wait_for()
    wait_until(lambda: page.locator("#exemplars img").count() == 5)
    wait_until(lambda: page.locator("#exemplars img").evaluate_all("all => all.every(one => one.naturalWidth > 0)"))
    assert page.locator("#exemplars img").first.get_attribute("alt") == "red, 20.0 % of what it has seen"
    line = page.input_value("#curl-line")
    (photo.parent / "photo.jpg").write_bytes(encode(bands(60, 100), "jpeg"))
    subprocess.run(["bash", "-ec", line], cwd=photo.parent, check=True, capture_output=True, timeout=60)
    with Image.open(io.BytesIO((photo.parent / "overlay.jpg").read_bytes())) as overlay:
        assert overlay.size == (100, 60)
    page.click("#copy-line")
    page.locator("#curl-told", has_text="C").wait_for()


def test_the_status_line_says_when_the_server_is_away_and_back(page: Any, photo: Path) -> None:
    page.locator("[data-status=queue]", has_text="0 waiting, 0 running").wait_for()
    for path in ("**/healthz", "**/segment?*"):
        page.route(path, lambda route: route.abort())
    page.set_input_files("#file", photo)
    page.locator("#notice.bad", has_text="does not answer").wait_for()
    page.locator("[data-status=away]").wait_for()
    page.unroute_all()
    page.locator("[data-status=queue]").wait_for()
    page.wait_for_selector("#legend li")  # nobody had to ask again
    assert "answers again" in str(page.text_content("#notice"))
    assert "onnxruntime" in str(page.text_content("[data-status=engine]"))
    assert "encoder" in str(page.get_attribute("[data-status=time]", "title"))


def test_models_are_switched_and_followed(
    open_page: Callable[..., Any], tiny_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    write_tiny_bundle(shelf / "other", name="other")
    more = {"TESSERA_MODELS": str(shelf), "TESSERA_ADMIN_KEY": "admin"}
    with process(tiny_bundle, tmp_path / "state", **more) as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        give(page, photo)
        page.evaluate("fetch('clusters/0', {method: 'PATCH', body: '{\"name\": \"barn\"}'})")
        page.reload()
        give(page, photo)
        page.locator("#legend button.name", has_text="green").click()
        page.keyboard.type("lawn")
        page.keyboard.press("Enter")
        page.locator("#legend button.name", has_text="lawn").wait_for()
        page.locator(".model").wait_for(state="hidden")
        admin(port, "/models/other/load", b"{}")
        page.locator("#model option", has_text="other").wait_for(state="attached", timeout=15_000)
        page.select_option("#model", label="other (5 clusters)")
        page.locator("[data-status=model]", has_text="other@").wait_for()
        page.locator("#legend button.name", has_text="green").wait_for()
        assert sorted(names(page)) == ["black", "blue", "green", "red", "white"]
        assert page.get_attribute("#undo", "aria-disabled") == "true"
        page.select_option("#model", label="tiny (5 clusters)")
        page.locator("#legend button.name", has_text="lawn").wait_for()
        assert sorted(names(page)) == ["barn", "black", "blue", "lawn", "white"]
        page.select_option("#model", label="other (5 clusters)")
        page.locator("[data-status=model]", has_text="other@").wait_for()
        admin(port, "/models/other/unload", b"")
        page.locator("#notice", has_text="is served no more").wait_for(timeout=15_000)
        page.locator("#legend button.name", has_text="lawn").wait_for()


def admin(port: int, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"X-API-Key": "admin"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
