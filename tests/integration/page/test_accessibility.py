"""Everybody can use the page: what axe-core finds in every state of it, in sizes and colors, and what it cannot see."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from models.io.encode import encode
from tests import axe
from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import click, give, row, type_name
from tests.service.process import process
from tests.tiny import bands

pytestmark = pytest.mark.slow

LOOKS = [(1366, 768, "light"), (1366, 768, "dark"), (1280, 800, "light"), (390, 844, "light"), (390, 844, "dark")]


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]}x{look[1]}-{look[2]}")
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A size and a color scheme."""
    width, height, scheme = request.param
    phone = {"has_touch": True, "is_mobile": True} if width < 800 else {}
    return {"width": width, "height": height, "color_scheme": scheme, **phone}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photo, another one, a file with pages, one that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(encode(bands(60, 100), "png"))
    tifffile.imwrite(folder / "pages.tif", np.stack([bands(60, 100)] * 3), photometric="rgb")
    (folder / "bad.png").write_bytes(b"no image")
    return {file.stem: file for file in folder.iterdir()}


def states(page: Any, photos: dict[str, Path]) -> Iterator[str]:
    """Walk through the page; each time it is in another state, that state's name."""
    page.wait_for_selector("#drop")
    page.wait_for_timeout(300)
    yield "empty"
    give(page, photos["one"])
    yield "photo"
    row(page, "blue").locator(".tick").check()
    yield "selected"
    row(page, "green").locator(".tick").check()
    yield "two selected"
    row(page, "red").locator("button.name").click()
    page.wait_for_selector("input.name:focus")
    yield "renaming"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    type_name(page, "green", "blue")
    page.locator("#legend .question").wait_for()
    yield "same thing?"
    page.keyboard.press("Escape")
    page.locator("[data-tool=similar]").click()
    page.locator("#labels").click()
    page.locator("#notice", has_text="What is clear").wait_for()
    yield "similar"
    page.locator("[data-tool=teach]").click()
    page.wait_for_selector("#class-name:focus")
    yield "teach without classes"
    for name, x in (("lake", 0.5), ("meadow", 0.3)):
        page.locator("#class-name").fill(name)
        page.keyboard.press("Enter")
        page.locator("#teach .called", has_text=name).wait_for()
        click(page, x, 0.5)
        page.locator(f"#marks [aria-label*={name}]").first.wait_for()
    page.wait_for_selector("#teach .places li")
    yield "teach with classes and suggestions"
    page.locator("[aria-label='More about lake']").click()
    page.wait_for_selector("#teach .details")
    yield "a class opened"
    page.locator("[data-tool=pick]").click()
    page.get_by_role("button", name="Found", exact=True).click()
    page.locator("#to-clusters").click()
    page.wait_for_selector(".cards li")
    yield "clusters"
    page.locator("#to-photo").click()
    page.locator("#save").click()
    page.wait_for_selector("#save-now")
    yield "save dialog"
    page.locator("summary", has_text="More formats").click()
    page.locator("#copy-curl").click()
    page.locator("#snippet").wait_for()
    yield "all of the save dialog"
    page.keyboard.press("Escape")
    page.locator("#labels").focus()
    page.keyboard.press("?")
    page.wait_for_selector("dialog .keys")
    yield "keys dialog"
    page.keyboard.press("Escape")
    click(page, 0.5, 0.5)
    page.locator(".picked").get_by_role("button").wait_for()
    yield "picked"
    page.locator(".picked button").click()
    yield "named where it was picked"
    page.keyboard.press("Escape")
    page.set_input_files("#file", photos["bad"])
    page.wait_for_selector("#notice.bad")
    yield "error"
    give(page, photos["pages"])
    page.wait_for_selector("#pages:not([hidden])")
    yield "pages"
    page.set_input_files("#file", [str(photos["one"]), str(photos["two"])])
    page.locator("#progress", has_text="4 of 5").wait_for()
    yield "strip"


def test_axe_finds_nothing(
    open_page: OpenPage, tiny_bundle: Path, tmp_path: Path, photos: dict[str, Path], look: dict[str, Any]
) -> None:
    found = {}
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/", **look)
        for state in states(page, photos):
            page.wait_for_timeout(150)
            found[state] = axe.violations(page)
    print({state: len(wrong) for state, wrong in found.items()})
    assert {state: wrong for state, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_where_a_key_is_asked_for(
    open_page: OpenPage, tiny_bundle: Path, tmp_path: Path, scheme: str
) -> None:
    with process(tiny_bundle, tmp_path / "state", TESSERA_KEYS="alice=open sesame") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/", color_scheme=scheme)
        page.get_by_label("Key", exact=True).wait_for()
        assert axe.violations(page) == []


def test_colors_of_the_readers_own_leave_nothing_out(open_page: OpenPage, served: str, photos: dict[str, Path]) -> None:
    page = open_page(served, forced_colors="active")
    give(page, photos["one"])
    fill = "one => getComputedStyle(one).backgroundColor"
    tools = {name: page.locator(f"#tools [data-tool={name}]").evaluate(fill) for name in ("pick", "similar")}
    assert tools["pick"] != tools["similar"], "which tool is in use is seen"
    assert (
        row(page, "blue").locator("input[type=color]").evaluate("one => getComputedStyle(one).forcedColorAdjust")
        == "none"
    )
    assert axe.violations(page) == []


def test_who_wants_no_motion_sees_none(open_page: OpenPage, served: str, photos: dict[str, Path]) -> None:
    page = open_page(served, reduced_motion="reduce")
    held: list[Any] = []
    page.route("**/segment?*", lambda route: held.append(route))
    page.set_input_files("#file", photos["one"])
    page.locator("#working").wait_for()
    assert page.evaluate("document.getAnimations().length") == 0
    held[0].continue_()
    page.locator("#working").wait_for(state="hidden")


@pytest.mark.parametrize(
    ("width", "height"), [(683, 384), (320, 256), (844, 390)], ids=["200 %", "400 %", "on its side"]
)
def test_large_letters_and_small_windows_lose_nothing(
    open_page: OpenPage, served: str, photos: dict[str, Path], width: int, height: int
) -> None:
    page = open_page(served, width=width, height=height)
    give(page, photos["one"])
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    for name in ("Pick", "Hold to compare", "Outlines", "Save …", "Found", "blue"):
        button = page.get_by_role("button", name=name, exact=True)
        button.scroll_into_view_if_needed()
        button.click(trial=True)  # nothing lies over it
    page.locator("#status").scroll_into_view_if_needed()
