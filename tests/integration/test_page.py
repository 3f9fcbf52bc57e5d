"""The page in a real browser: drop a photo, see the legend, rename a cluster. Skipped where there is no chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.io.encode import encode
from tests.service.process import process
from tests.tiny import bands

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.mark.parametrize("suffix", ["png", pytest.param("tif", marks=pytest.mark.slow)])
def test_drop_see_rename(browser: Any, tiny_bundle: Path, tmp_path: Path, suffix: str) -> None:
    photo = tmp_path / f"photo.{suffix}"
    if suffix == "tif":
        import tifffile

        tifffile.imwrite(photo, bands(60, 100), photometric="rgb")
    else:
        photo.write_bytes(encode(bands(60, 100), "png"))
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        page = browser.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        home = f"http://127.0.0.1:{port}/"
        page.goto(home)
        page.set_input_files("#file", photo)
        page.wait_for_selector("#clusters li")
        assert sorted(page.locator("#clusters .name").all_text_contents()) == ["black", "blue", "green", "red", "white"]
        assert page.locator("#clusters .share").first.text_content() == "21.0 %"
        page.wait_for_function("document.getElementById('photo').naturalWidth === 100")
        # The label canvas has each band's own color where the band is.
        canvas = page.locator("#labels")
        for x, color in ((10, [230, 30, 30]), (50, [30, 50, 220]), (90, [10, 10, 10])):
            got = canvas.evaluate(f"c => [...c.getContext('2d').getImageData({x}, 30, 1, 1).data.slice(0, 3)]")
            assert got == color
        page.check("#alike")
        canvas.click(position={"x": canvas.bounding_box()["width"] * 0.5, "y": 5})
        page.locator("#status", has_text="The brighter").wait_for()
        places = {x: canvas.evaluate(f"c => c.getContext('2d').getImageData({x}, 30, 1, 1).data[0]") for x in (50, 10)}
        assert places[50] > 240 > places[10]  # the place itself is as hot as it gets
        page.uncheck("#alike")
        page.locator("#clusters .name", has_text="blue").click()
        page.wait_for_selector("input.name:focus")
        page.keyboard.type("lake <b>")
        page.keyboard.press("Enter")
        page.locator("#clusters button.name", has_text="lake <b>").wait_for()
        page.reload()
        page.set_input_files("#file", photo)
        page.locator("#clusters button.name", has_text="lake <b>").wait_for()
        (tmp_path / "bad.png").write_bytes(b"no image")
        page.set_input_files("#file", tmp_path / "bad.png")
        page.wait_for_selector("#status.bad")
        assert "not an image" in (page.locator("#status").text_content() or "")
        assert page.locator("#legend").is_hidden()
        assert page.locator("#download").get_attribute("href") is None
        clear = np.concatenate([bands(60, 100), np.full((60, 100, 1), 255, np.uint8)], 2)
        clear[:, :30, 3] = 0
        (tmp_path / "clear.png").write_bytes(encode(clear, "png"))
        page.set_input_files("#file", tmp_path / "clear.png")
        page.locator("#timing", has_text="70.0 % hold data").wait_for()
        opacity = {x: canvas.evaluate(f"c => c.getContext('2d').getImageData({x}, 30, 1, 1).data[3]") for x in (10, 50)}
        assert opacity == {10: 0, 50: 255}
        page.close()
        assert wrong == []
        assert [url for url in asked if not url.startswith((home, "blob:", "data:"))] == []


def test_a_photo_given_before_the_models_are_known_waits_for_them(
    browser: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    with process(tiny_bundle, tmp_path) as (_, port):
        page = browser.new_page()
        held: list[Any] = []
        asked: list[str] = []
        page.route("**/models", lambda route: held.append(route))  # playwright wants a function of Python
        page.on("request", lambda request: asked.append(request.url.removeprefix(f"http://127.0.0.1:{port}")))
        page.goto(f"http://127.0.0.1:{port}/")
        (tmp_path / "photo.png").write_bytes(encode(bands(60, 100), "png"))
        page.set_input_files("#file", tmp_path / "photo.png")
        page.wait_for_selector("body.busy")
        held[0].continue_()
        page.wait_for_selector("#clusters li")
        assert next(url.split("?")[1] for url in asked if url.startswith("/segment")).startswith("model=")
        assert not any("k=" in url for url in asked if url.startswith("/segment"))
        page.close()


def test_a_name_that_cannot_be_kept_is_not_shown_and_the_page_says_why(
    browser: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("in the way")
    (tmp_path / "photo.png").write_bytes(encode(bands(60, 100), "png"))
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.set_input_files("#file", tmp_path / "photo.png")
        page.locator("#clusters .name", has_text="blue").click()
        page.wait_for_selector("input.name:focus")
        page.keyboard.type("lake")
        page.keyboard.press("Enter")
        page.locator("#status.bad", has_text="TESSERA_STATE").wait_for()
        assert "blue" in page.locator("#clusters button.name").all_text_contents()
        page.close()


def test_where_keys_are_configured_the_page_asks_for_one(browser: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode(bands(60, 100), "png"))
    keys = {"TESSERA_KEYS": "alice=open sesame"}
    with process(tiny_bundle, tmp_path / "state", **keys) as (_, port):
        page = browser.new_page()
        page.on("dialog", lambda dialog: dialog.accept("open sesame"))
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#about", has_text="clusters").wait_for()
        page.set_input_files("#file", photo)
        page.wait_for_selector("#clusters li")
        page.wait_for_selector("#clusters img[src^='blob:']")
        page.close()
