"""Drop a photo, see what is there, call it something, take that back; what goes wrong is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.io.encode import encode
from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import color_at, give, names, rename, row, until
from tests.service.process import process
from tests.tiny import bands


def test_drop_see_rename_undo(page: Any, photo: Path) -> None:
    """The one journey that the fast suite takes."""
    give(page, photo)
    assert sorted(names(page)) == ["black", "blue", "green", "red", "white"]
    assert page.locator("#legend .share").first.text_content() == "21.0 %"
    seen = color_at(page, 0.5, 0.5)
    assert max(range(3), key=lambda band: seen[band]) == 2, "blue is painted over the band in the middle"
    rename(page, "blue", "lake <b>")
    row(page, "lake <b>").wait_for()
    page.keyboard.press("Control+z")
    row(page, "blue").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_names_stay_and_similar_places_glow(page: Any, photo: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == "tif":
        import tifffile

        photo = tmp_path / "photo.tif"
        tifffile.imwrite(photo, bands(60, 100), photometric="rgb")
    give(page, photo)
    until(page, "document.getElementById('photo').naturalWidth === 100")
    page.locator("#tools [data-tool=similar]").click()
    canvas = page.locator("#labels")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    page.locator("#notice", has_text="What is clear").wait_for()
    page.wait_for_timeout(100)
    assert color_at(page, 0.5, 0.5)[3] == 0 < color_at(page, 0.1, 0.5)[3], "the photo is clear where it is alike"
    page.locator("#tools [data-tool=pick]").click()
    rename(page, "green", f"meadow {suffix}")
    row(page, f"meadow {suffix}").wait_for()
    page.reload()
    give(page, photo)
    row(page, f"meadow {suffix}").wait_for()
    rename(page, f"meadow {suffix}", "")
    row(page, "green").wait_for()


@pytest.mark.slow
def test_after_a_bad_file_nothing_of_the_photo_before_is_left(page: Any, photo: Path, tmp_path: Path) -> None:
    give(page, photo)
    row(page, "blue").locator(".tick").check()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page.set_input_files("#file", bad)
    page.wait_for_selector("#notice.bad")
    assert "not an image" in (page.locator("#notice").text_content() or "")
    assert page.locator("#legend li").count() == 0
    assert page.locator("#familiarity").is_hidden()
    assert page.locator("#marks *").count() == 0
    assert "photo.png" not in page.title()
    assert color_at(page, 0.5, 0.5)[3] == 0
    clear = np.concatenate([bands(60, 100), np.full((60, 100, 1), 255, np.uint8)], 2)
    clear[:, :30, 3] = 0
    good = tmp_path / "clear.png"
    good.write_bytes(encode(clear, "png"))
    give(page, good)
    assert page.locator("#notice.bad").count() == 0
    page.wait_for_timeout(100)
    assert color_at(page, 0.1, 0.5)[3] == 0, "where the photo is transparent nothing is painted"
    assert color_at(page, 0.5, 0.5)[3] > 0


@pytest.mark.slow
def test_a_photo_given_before_the_models_are_known_waits_for_them(browser: Any, served: str, photo: Path) -> None:
    page = browser.new_page()
    held: list[Any] = []
    asked: list[str] = []
    page.route("**/models", lambda route: held.append(route))  # playwright wants a function of Python
    page.on("request", lambda request: asked.append(request.url.removeprefix(served)))
    page.goto(served)
    page.set_input_files("#file", photo)
    page.wait_for_selector("body:not(.empty)")
    assert not any(url.startswith("segment") for url in asked)
    held[0].continue_()
    page.wait_for_selector("#legend li")
    assert next(url.split("?")[1] for url in asked if url.startswith("segment")).startswith("model=")
    assert not any("k=" in url for url in asked if url.startswith("segment"))
    page.close()


@pytest.mark.slow
def test_a_name_that_cannot_be_kept_is_not_shown_and_the_page_says_why(
    open_page: OpenPage, tiny_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("in the way")
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        give(page, photo)
        rename(page, "blue", "lake")
        page.locator("#notice.bad", has_text="TESSERA_STATE").wait_for()
        page.wait_for_selector("input.name:focus")
        assert page.evaluate("document.activeElement.value") == "lake", "what was typed is not lost"
        page.keyboard.press("Escape")
        row(page, "blue").wait_for()
        assert page.locator("#undo").get_attribute("aria-disabled") == "true"


@pytest.mark.slow
def test_where_keys_are_configured_the_page_asks_for_one(
    open_page: OpenPage, tiny_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    with process(tiny_bundle, tmp_path / "state", TESSERA_KEYS="alice=open sesame") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        page.get_by_role("dialog", name="This server asks for a key").wait_for()
        page.get_by_label("Key", exact=True).fill("open sesame")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for(state="hidden")
        give(page, photo)
        assert len(names(page)) == 5
