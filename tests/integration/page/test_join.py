"""Groups become one and come apart: by ticks, by name, by suggestion, by level; everything can be undone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile

from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import (
    click,
    color_at,
    give,
    names,
    rename,
    row,
    type_name,
    until,
    until_done,
    until_rows,
)
from tests.service.process import process
from tests.tiny import COLORS, bands

pytestmark = pytest.mark.slow

X = {"red": 0.1, "green": 0.3, "blue": 0.5, "white": 0.7, "black": 0.9}  # where each band is, as a share of the photo


@pytest.fixture
def fresh(open_page: OpenPage, tiny_bundle: Path, photo: Path, tmp_path: Path) -> Any:
    """A page with the photo, on a server where nobody has said anything."""
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        give(page, photo)
        yield page


def tick(page: Any, *called: str) -> None:
    for name in called:
        row(page, name).locator(".tick").check()


def undo(page: Any) -> None:
    page.locator("#undo").click()


def answering(told: dict[str, Any]) -> Callable[[Any], None]:
    """A route whose answers say this besides what the server says."""

    def fulfill(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), **told})

    return fulfill


def painted(page: Any, band: str) -> list[int]:
    """The color over a band, its opacity left out; the frame is as wide as the photo is."""
    page.wait_for_timeout(60)
    box = page.locator("#labels").bounding_box()
    scale = min(box["width"] / 100, box["height"] / 60)
    x = 0.5 + (X[band] - 0.5) * 100 * scale / box["width"]
    return [round(value / 16) for value in color_at(page, x, 0.5)[:3]]


def test_two_that_are_ticked_are_merged_and_come_apart(fresh: Any) -> None:
    assert fresh.locator("#merge").is_hidden()
    tick(fresh, "red", "black")
    assert fresh.locator("#merge").text_content() == "Merge 2 as “red”", "it says what comes of it"
    fresh.locator("#merge").click()
    until_rows(fresh, 4)
    assert "black" not in names(fresh)
    assert fresh.locator("#legend .share").first.text_content() == "41.0 %"
    assert painted(fresh, "black") == painted(fresh, "red")
    fresh.wait_for_selector("input.name:focus")
    assert fresh.evaluate("document.activeElement.value") == "red", "what is left asks for its name"
    fresh.keyboard.press("Escape")
    assert fresh.evaluate("document.activeElement.textContent") == "red", "the focus is on what is left"
    row(fresh, "red").get_by_role("button", name="Take apart red").click()
    row(fresh, "black").wait_for()
    undo(fresh)
    until_rows(fresh, 4)
    undo(fresh)
    row(fresh, "black").wait_for()
    fresh.locator("#redo").click()
    until_rows(fresh, 4)
    fresh.wait_for_timeout(300)
    fresh.reload()
    assert fresh.evaluate("fetch('clusters/4').then((r) => r.json()).then((one) => one.merged_into)") == 0


def test_what_is_clicked_is_named_and_merged_where_it_was_clicked(fresh: Any) -> None:
    click(fresh, X["red"], 0.5)
    here = fresh.locator(".picked")
    here.get_by_role("button", name="Name red").click()
    fresh.keyboard.type("roof")
    fresh.keyboard.press("Enter")
    row(fresh, "roof").wait_for()
    fresh.keyboard.down("Shift")
    click(fresh, X["black"], 0.5)
    fresh.keyboard.up("Shift")
    here.get_by_text("2 selected").wait_for()
    here.get_by_role("button", name="Merge").click()
    fresh.wait_for_selector(".picked input.name:focus")
    assert fresh.evaluate("document.activeElement.value") == "roof", "the name that would win"
    fresh.keyboard.type("house")
    fresh.keyboard.press("Enter")
    row(fresh, "house").wait_for()
    until_done(fresh, "black became house")
    assert fresh.locator("#legend-how").is_hidden(), "people know how by now"
    undo(fresh)
    until_rows(fresh, 5)
    row(fresh, "roof").wait_for()
    fresh.locator("#redo").click()
    until_rows(fresh, 4)
    row(fresh, "house").wait_for()


def test_a_name_that_is_too_long_is_not_cut_in_silence(fresh: Any) -> None:
    type_name(fresh, "blue", "n" * 81)
    fresh.locator("#notice.bad", has_text="this one has 81").wait_for()
    assert fresh.evaluate("document.activeElement.value.length") == 81
    fresh.keyboard.press("Backspace")
    fresh.keyboard.press("Enter")
    row(fresh, "n" * 80).wait_for()


def test_a_name_that_is_there_asks_whether_it_is_the_same_thing(fresh: Any) -> None:
    type_name(fresh, "green", "Red")
    question = fresh.locator("#legend .question")
    assert "The same thing?" in (question.text_content() or "")
    assert fresh.evaluate("document.activeElement.textContent") == "Merge"
    fresh.keyboard.press("Enter")
    until_rows(fresh, 4)
    assert "green" not in names(fresh)
    undo(fresh)
    row(fresh, "green").wait_for()
    type_name(fresh, "green", "red")
    question.get_by_role("button", name="Keep apart").click()
    until(fresh, "[...document.querySelectorAll('button.name')].filter((n) => n.textContent === 'red').length === 2")
    undo(fresh)
    type_name(fresh, "green", "red")
    fresh.keyboard.press("Escape")
    row(fresh, "green").wait_for()
    assert question.count() == 0


def test_suggestions_show_what_they_would_do_and_do_it(fresh: Any) -> None:
    joining = fresh.locator("#joining")
    assert "of the old kind" in (joining.text_content() or ""), "the tiny bundle's tree is of centroids"
    asked: list[str] = []
    fresh.on("request", lambda request: asked.append(request.url))
    before = painted(fresh, "green")
    join = fresh.get_by_role("button", name="Join green and blue: very far apart")
    join.hover()
    assert painted(fresh, "green") == painted(fresh, "blue") != before
    assert len(names(fresh)) == 5, "the rows stay while it is only shown"
    fresh.mouse.move(5, 5)
    assert painted(fresh, "green") == before
    join.focus()
    assert painted(fresh, "green") == painted(fresh, "blue")
    assert [url for url in asked if "segment" in url] == []
    fresh.keyboard.press("Enter")
    until_rows(fresh, 4)
    assert [url for url in asked if "segment" in url] == [], "one label map does for all"
    fresh.keyboard.press("Control+z")
    row(fresh, "green").wait_for()


def test_fewer_things_say_what_becomes_one(fresh: Any) -> None:
    levels = fresh.locator("#joining .levels")
    assert "5 of 5 things" in (levels.text_content() or "")
    assert "green and blue" in (levels.text_content() or "")
    fewer = levels.get_by_role("button", name="Show fewer")
    fewer.focus()
    assert painted(fresh, "green") == painted(fresh, "blue")
    fresh.keyboard.press("Enter")
    fresh.locator(".levels output", has_text="4 of 5 things").wait_for()
    assert len(names(fresh)) == 4
    assert "Show fewer" in fresh.evaluate("document.activeElement.getAttribute('aria-label')")
    assert fresh.evaluate("fetch('clusters/2').then((r) => r.json()).then((one) => one.merged_into)") is None
    for _ in range(2):
        fresh.keyboard.press("Enter")
    fresh.locator(".levels output", has_text="2 of 5 things").wait_for()
    fresh.keyboard.press("Enter")
    assert fresh.locator(".levels .next", has_text="no level with fewer").count() == 1
    fresh.keyboard.press("Control+z")  # looks in a row are one step
    fresh.locator(".levels output", has_text="5 of 5 things").wait_for()
    assert len(names(fresh)) == 5


def test_everything_is_undone_in_its_order(fresh: Any) -> None:
    rename(fresh, "blue", "lake")
    row(fresh, "lake").locator(".swatch").evaluate(
        "i => { i.value = '#123456'; i.dispatchEvent(new Event('change')); }"
    )
    until_done(fresh, "another color")
    row(fresh, "lake").locator(".eye").click()
    until_done(fresh, "hidden")
    assert fresh.evaluate("document.activeElement.className") == "eye", "the focus stays"
    fresh.locator("[name=edges][value=fast]").check(force=True)
    until_done(fresh, "edges fast")
    for words in ("hidden", "another color", "lake"):
        undo(fresh)
        until_done(fresh, words)
    assert fresh.locator("[name=edges][value=false]").is_checked()
    undo(fresh)
    row(fresh, "blue").wait_for()
    for _ in range(4):
        fresh.locator("#redo").click()
    until_done(fresh, "edges fast")
    row(fresh, "lake").wait_for()
    assert fresh.locator("[name=edges][value=fast]").is_checked()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_rows_show_a_piece_of_the_photo_also_of_one_that_no_browser_opens(
    page: Any, photo: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == "tif":
        photo = tmp_path / "photo.tif"
        tifffile.imwrite(photo, bands(60, 100), photometric="rgb")
    give(page, photo)
    pixel = "c => [...c.getContext('2d').getImageData(32, 32, 1, 1).data.slice(0, 3)]"
    for name in names(page):
        thumbnail = row(page, name).locator("canvas")
        deadline = time.monotonic() + 5
        while max(abs(a - b) for a, b in zip(thumbnail.evaluate(pixel), COLORS[name], strict=True)) > 12:
            assert time.monotonic() < deadline, name
            page.wait_for_timeout(50)


def test_the_default_name_comes_back(fresh: Any) -> None:
    rename(fresh, "blue", "lake")
    row(fresh, "lake").locator("button.name").click()
    fresh.get_by_role("button", name="Default name back: blue").click()
    row(fresh, "blue").wait_for()
    assert fresh.evaluate("document.activeElement.textContent") == "blue"
    undo(fresh)
    row(fresh, "lake").wait_for()


def test_the_keyboard_alone_does_all_of_it(fresh: Any) -> None:
    press = fresh.keyboard.press
    press("3")
    press("n")
    fresh.wait_for_selector("input.name:focus")
    assert fresh.evaluate("document.activeElement.value") == "white", "the letter itself is not typed"
    fresh.keyboard.type("hn1 snow")
    press("Enter")
    row(fresh, "hn1 snow").wait_for()
    assert fresh.evaluate("document.activeElement.textContent") == "hn1 snow"
    press("F2")
    fresh.wait_for_selector("input.name:focus")
    press("Escape")
    press("h")
    fresh.wait_for_selector("#legend li.unseen")
    press("Control+z")
    fresh.wait_for_selector("#legend li.unseen", state="detached")
    press("1")
    press("Shift+2")
    press("m")
    until_rows(fresh, 4)
    press("Control+z")
    until_rows(fresh, 5)
    press("Control+y")
    until_rows(fresh, 4)
    for letter, tool in (("s", "similar"), ("t", "teach"), ("Escape", "pick"), ("s", "similar"), ("p", "pick")):
        fresh.evaluate("document.activeElement.blur()")
        press(letter)
        until(fresh, "tool => document.querySelector('#view').dataset.tool === tool", tool)
    press("?")
    keys = fresh.get_by_role("dialog", name="Keys")
    keys.wait_for()
    press("s")
    assert fresh.locator("#view").get_attribute("data-tool") == "pick", "not while a dialog is open"
    keys.get_by_label("Single letters and numbers do something").uncheck()
    press("Escape")
    keys.wait_for(state="hidden")
    press("s")
    assert fresh.locator("#view").get_attribute("data-tool") == "pick", "letters can be switched off"
    fresh.locator("#tools [data-tool=pick]").focus()
    press("ArrowRight")
    assert fresh.evaluate("document.activeElement.dataset.tool") == "similar"
    press("End")
    press("ArrowRight")
    assert fresh.evaluate("document.activeElement.dataset.tool") == "pick"
    assert fresh.locator("#tools [tabindex='0']").count() == 1


def test_names_of_ones_own_survive_whatever_the_browser_keeps(fresh: Any, photo: Path) -> None:
    assert "shared with everybody" in (fresh.locator("#shared-hint").text_content() or "")
    rename(fresh, "red", "brick")
    fresh.locator("#scope").select_option("local")
    row(fresh, "red").wait_for()
    type_name(fresh, "blue", "my lake")
    row(fresh, "my lake").wait_for()
    tick(fresh, "red", "black")
    fresh.locator("#merge").click()
    until_rows(fresh, 4)
    assert fresh.evaluate("fetch('clusters/2').then((r) => r.json()).then((one) => one.name)") == "blue"
    fresh.reload()
    give(fresh, photo)
    row(fresh, "my lake").wait_for()
    for broken in (
        "no JSON",
        "[1]",
        '{"local": true, "tiny@x": 3}',
        '{"local": true, "%s": {"2": {"name": 7, "color": "red"}, "0": 1}}',
    ):
        model = fresh.locator("#model").input_value()
        fresh.evaluate("text => localStorage.setItem('tessera.names', text)", broken.replace("%s", model))
        fresh.reload()
        give(fresh, photo)
        row(fresh, "blue").wait_for()
    blocked = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    fresh.add_init_script(blocked)
    fresh.reload()
    give(fresh, photo)
    fresh.locator("#scope").select_option("local")
    fresh.locator("#notice.bad", has_text="lets the page keep nothing").wait_for()
    type_name(fresh, "blue", "for now")
    row(fresh, "for now").wait_for()


def test_two_browsers_see_each_other_and_lose_nothing(fresh: Any, open_page: OpenPage, photo: Path) -> None:
    other = open_page(fresh.url)
    give(other, photo)
    rename(fresh, "red", "brick")
    row(other, "green").locator("button.name").click()
    other.keyboard.type("mead")
    other.evaluate("dispatchEvent(new Event('focus'))")
    other.wait_for_timeout(400)
    assert other.evaluate("document.activeElement.value") == "mead", "what is typed stays"
    other.keyboard.type("ow")
    other.keyboard.press("Enter")
    row(other, "brick").wait_for()
    row(other, "meadow").wait_for()
    fresh.evaluate("dispatchEvent(new Event('focus'))")
    row(fresh, "meadow").wait_for()
    rename(fresh, "meadow", "park")
    type_name(other, "meadow", "forest")  # it is called park by now, and not seen here
    other.locator("#notice.bad", has_text="called it “park”").wait_for()
    row(other, "park").wait_for()
    rename(other, "park", "wood")
    undo(fresh)
    fresh.locator("#notice.bad", has_text="called it “wood”").wait_for()
    undo(fresh)  # the step that is somebody else's by now is gone: the next is brick
    row(fresh, "red").wait_for()


def test_a_slow_and_failing_network_leaves_the_page_usable(fresh: Any, photo: Path) -> None:
    busy = {"left": 1}

    def refuse(route: Any) -> None:
        if route.request.method == "PATCH" and busy["left"]:
            busy["left"] -= 1
            route.fulfill(status=503, headers={"retry-after": "1"}, json={"detail": "busy"})
        else:
            route.continue_()

    fresh.route("**/clusters/*", refuse)
    rename(fresh, "red", "brick")
    until_done(fresh, "brick")
    assert fresh.locator("#notice.bad").count() == 0, "asked again, without a word"
    fresh.unroute("**/clusters/*")
    fresh.context.set_offline(True)
    type_name(fresh, "blue", "lake")
    fresh.locator("#notice.bad", has_text="does not answer").wait_for()
    fresh.wait_for_selector("input.name:focus")
    assert fresh.evaluate("document.activeElement.value") == "lake", "what could not be sent is not lost"
    fresh.context.set_offline(False)
    fresh.keyboard.press("Enter")
    row(fresh, "lake").wait_for()
    fresh.route("**/segment*", lambda route: route.abort())
    fresh.locator("[name=edges][value=fast]").check(force=True)
    fresh.locator("#notice.bad", has_text="does not answer").wait_for()
    assert len(names(fresh)) == 5, "what was there is still there"
    fresh.unroute("**/segment*")
    undo(fresh)
    until(fresh, "document.querySelector('[name=edges][value=false]').checked")
    give(fresh, photo)


def test_how_familiar_a_photo_is_stands_over_it(fresh: Any, photo: Path) -> None:
    badge = fresh.locator("#familiarity")
    assert badge.is_hidden(), "the tiny bundle cannot say"
    for familiarity, familiar, words in (
        (0.6, True, "like the photos"),
        (0.05, True, "rather unlike"),
        (0.0, False, "means little"),
    ):
        told: dict[str, Any] = {"familiarity": familiarity, "familiar": familiar}
        fresh.route("**/segment*", answering(told))
        give(fresh, photo)
        fresh.locator("#familiarity", has_text=words).wait_for()
        fresh.unroute("**/segment*")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1280, 800)])
def test_eleven_rows_and_what_could_be_joined_fit_a_small_screen(
    open_page: OpenPage, photo: Path, tmp_path: Path, width: int, height: int
) -> None:
    street = Path("models/pretrained/street")
    with process(street, tmp_path / "state") as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/", width, height)
        found = page.evaluate("fetch('clusters').then((r) => r.json())")
        eleven = [
            {**one, "pixels": 500, "fraction": 1 / 11, "confidence": 0.2, "bbox": [0, 0, 9, 9]}
            for one in found["clusters"]
        ]

        page.route("**/segment*", answering({"clusters": eleven}))
        give(page, photo)
        assert len(names(page)) == 11
        page.locator("#joining li").first.wait_for()
        side = page.locator("#side").evaluate("s => [s.scrollHeight, s.clientHeight]")
        assert side[0] <= side[1], "nothing scrolls"
