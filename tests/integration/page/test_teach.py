"""Teach: classes in people's own words by a few clicks, seen at once, undone, kept, shared, asked for by the page."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.page.steps import color_at, give, rename

pytestmark = pytest.mark.slow

RED, GREEN, BLUE, WHITE, BLACK = 10, 30, 50, 70, 90  # columns in the middle of the photo's bands


@pytest.fixture
def home(served: str) -> str:
    """The server's address; nothing is taught there."""
    with urllib.request.urlopen(f"{served}classes/export") as answer:
        nothing = {**json.load(answer), "classes": []}
    put(f"{served}classes/import?replace=true", nothing)
    return served


def put(url: str, body: object) -> None:
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), method="PUT")).close()


def classes(home: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{home}classes") as answer:
        return list(json.load(answer)["classes"])


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the photo of 100×60 is seen."""
    box = page.locator("#photo").bounding_box()
    return box["x"] + (x + 0.5) / 100 * box["width"], box["y"] + (y + 0.5) / 60 * box["height"]


def click(page: Any, x: int) -> None:
    """Click a column where no mark lies over it."""
    free = "([x, y]) => document.elementFromPoint(x, y).id === 'labels'"
    places = [on_screen(page, x, y) for y in (30, 12, 48, 20, 40, 6, 54)]
    page.mouse.click(*next(place for place in places if page.evaluate(free, list(place))))


def painted(page: Any, x: int, y: int = 30) -> list[int]:
    """The color over a pixel of the photo, without its opacity."""
    view, (left, top) = page.locator("#labels").bounding_box(), on_screen(page, x, y)
    return color_at(page, (left - view["x"]) / view["width"], (top - view["y"]) / view["height"])[:3]


def wait_painted(page: Any, x: int, color: str) -> None:
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    for _ in range(100):
        if all(abs(a - b) <= 3 for a, b in zip(painted(page, x), wanted, strict=True)):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"column {x} is painted {painted(page, x)}, not {wanted}")


def row(page: Any, name: str) -> Any:
    return page.locator(".classes > li").filter(has=page.locator(".called", has_text=name))


def examples(page: Any, name: str, count: str) -> None:
    row(page, name).locator(".given", has_text=count).wait_for()


def name_it(page: Any, name: str) -> None:
    """Type the name of a new class, and Enter: a click means it."""
    page.fill("#class-name", name)
    page.keyboard.press("Enter")
    page.get_by_text(f"A click means {name}", exact=True).wait_for()


def begin_with_nothing(page: Any) -> None:
    """Take up Teach where nothing is taught, and leave what was found aside."""
    page.locator("#class-name:focus").wait_for()
    page.get_by_role("button", name="Begin with nothing").click()
    page.get_by_text("Taught begins with nothing").wait_for()


def teach(page: Any, name: str, *columns: int) -> None:
    name_it(page, name)
    for i, x in enumerate(columns):
        click(page, x)
        examples(page, name, str(i + 1))


def color_of(home: str, name: str) -> str:
    return str(next(one["color"] for one in classes(home) if one["name"] == name))


def test_two_classes_by_clicks(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.get_by_role("button", name="Teach", exact=True).click()
    begin_with_nothing(page)
    teach(page, "warm", RED)
    page.get_by_text("Everything is warm: nothing else has an example yet.").wait_for()
    assert page.get_by_role("button", name="Not this").get_attribute("aria-disabled") == "true"
    page.get_by_role("button", name="Add what was found").wait_for()
    teach(page, "cold", BLUE)
    warm, cold = color_of(home, "warm"), color_of(home, "cold")
    wait_painted(page, RED, warm)
    wait_painted(page, BLUE, cold)
    row(page, "cold").locator(".sure", has_text="clear").wait_for()
    shares = page.locator(".classes .share").all_text_contents()
    assert sum(float(share.removesuffix(" %")) for share in shares) == pytest.approx(100, abs=0.2)

    page.keyboard.press("Control+z")  # the click
    examples(page, "cold", "–")
    wait_painted(page, BLUE, warm)
    assert page.locator(".mark.example").count() == 1
    page.keyboard.press("Control+z")  # the class
    row(page, "cold").wait_for(state="detached")
    for _ in range(2):
        page.keyboard.press("Control+Shift+z")
    examples(page, "cold", "1")
    wait_painted(page, BLUE, cold)
    assert page.locator(".mark.example").count() == 2

    page.reload()
    page.set_input_files("#file", photo)  # whose words were shown last are shown again
    examples(page, "cold", "1")
    wait_painted(page, RED, warm)
    wait_painted(page, BLUE, cold)


def test_the_place_first_and_then_its_name(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.get_by_role("button", name="Taught").click()
    page.get_by_text("No class is taught yet.").wait_for()
    assert page.locator("#notice.bad").count() == 0
    page.get_by_role("button", name="Teach a class").click()
    page.get_by_text("Taught begins with what was found").wait_for()
    click(page, GREEN)
    page.get_by_text("What is this? Give it a name.").wait_for()
    page.keyboard.press("Escape")
    page.locator("#notice").wait_for(state="hidden")
    click(page, GREEN)
    page.keyboard.type("leaf")
    page.keyboard.press("Enter")
    examples(page, "leaf", "1")
    wait_painted(page, GREEN, color_of(home, "leaf"))
    wait_painted(page, BLACK, color_of(home, "black"))
    page.get_by_role("button", name="Undo").click()
    examples(page, "leaf", "–")


def test_what_looks_alike_becomes_an_example(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.get_by_role("button", name="Similar", exact=True).click()
    click(page, BLACK)
    page.get_by_role("button", name="Use as example").click()
    page.locator("#class-name:focus").wait_for()
    page.keyboard.type("night")
    page.keyboard.press("Enter")
    examples(page, "night", "1")
    page.get_by_role("button", name="Similar", exact=True).click()
    click(page, WHITE)
    page.get_by_role("button", name="Use as example").click()
    page.get_by_text("What is this? Choose a class, or name a new one.").wait_for()
    row(page, "night").locator("button.name").click()
    examples(page, "night", "2")


def test_boxes_what_it_is_not_and_marks_that_are_removed(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    begin_with_nothing(page)
    teach(page, "warm", RED)
    name_it(page, "cold")
    page.mouse.move(*on_screen(page, 44, 10))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 50, 30))
    page.locator("#rubber").wait_for(state="visible")
    page.mouse.move(*on_screen(page, 55, 50))
    page.mouse.up()
    examples(page, "cold", "1")
    assert page.locator(".mark.area").count() == 1
    wait_painted(page, BLUE, color_of(home, "cold"))
    page.keyboard.press("1")
    page.get_by_text("A click means warm", exact=True).wait_for()
    page.keyboard.down("Alt")
    click(page, BLACK)
    page.keyboard.up("Alt")
    examples(page, "warm", "2")
    page.get_by_role("button", name="Not this").click()
    click(page, WHITE)
    examples(page, "warm", "3")
    assert classes(home)[0]["negatives"] == 2
    page.mouse.move(0, 0)
    page.locator(".mark.example.negative").first.click()
    examples(page, "warm", "2")
    page.get_by_role("button", name="More about warm").click()
    page.get_by_role("button", name="Remove example 2 of warm").click()
    examples(page, "warm", "1")
    assert page.locator(".mark.example").count() == 2
    page.get_by_role("button", name="Undo").click()
    examples(page, "warm", "2")
    assert page.locator(".mark.example").count() == 3


def test_a_class_is_named_anew_made_of_groups_and_deleted(
    open_page: Callable[..., Any], home: str, photo: Path
) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    begin_with_nothing(page)
    name_it(page, "warm")
    page.get_by_role("button", name="More about warm").click()
    page.get_by_label("red", exact=True).check()
    wait_painted(page, RED, color_of(home, "warm"))
    page.get_by_label("New name of warm").fill("heat")
    page.keyboard.press("Enter")
    row(page, "heat").wait_for()
    teach(page, "cold", BLUE)
    wait_painted(page, BLUE, color_of(home, "cold"))
    page.get_by_role("button", name="Delete class").click()
    row(page, "heat").wait_for(state="detached")
    wait_painted(page, RED, color_of(home, "cold"))
    page.get_by_role("button", name="Undo").click()
    row(page, "heat").wait_for()
    wait_painted(page, RED, color_of(home, "heat"))
    assert [one["clusters"] for one in classes(home) if one["name"] == "heat"] == [[0]]
    for _ in range(3):  # deleted, cold's example, cold, the new name
        page.get_by_role("button", name="Undo").click()
    row(page, "warm").wait_for()


def test_by_the_keyboard_alone(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("t")
    page.locator("#class-name:focus").wait_for()
    page.keyboard.type("warm")
    press("Enter")
    page.locator("#labels:focus").wait_for()
    press(*["Shift+ArrowLeft"] * 9, "Enter")
    examples(page, "warm", "1")
    press("t")
    page.locator("#class-name:focus").wait_for()
    page.keyboard.type("cold")
    press("Enter")
    page.locator("#labels:focus").wait_for()
    press("ArrowLeft", "Enter")
    examples(page, "cold", "1")
    page.locator(".places li").first.wait_for()
    for _ in range(60):
        press("Tab")
        if page.evaluate("document.activeElement.dataset.key") == "list-0-1":
            break
    said = page.evaluate("document.activeElement.getAttribute('aria-label')")
    press("Enter")
    name = said.removeprefix("Place 1 is ")
    examples(page, name, "2")
    assert page.evaluate("document.activeElement.dataset.key") == "list-0-1"  # for the next answer


def test_what_the_server_does_not_keep_is_not_shown(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    begin_with_nothing(page)
    teach(page, "warm", RED)
    held: list[Any] = []
    page.route("**/classes/0/examples*", lambda route: held.append(route))
    click(page, BLUE)
    page.locator(".mark.example.pending").wait_for()  # seen before the server answers
    page.wait_for_timeout(100)  # what is held came with it
    held[0].fulfill(status=507, content_type="application/problem+json", body=json.dumps({"detail": "no room"}))
    page.locator("#notice.bad", has_text="no room").wait_for()
    assert page.locator(".mark.example").count() == 1
    examples(page, "warm", "1")


def test_two_browsers_at_once(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    pages = [open_page(home) for _ in range(2)]
    for page in pages:
        give(page, photo)
        page.keyboard.press("t")
        begin_with_nothing(page)
    for page, name in zip(pages, ("warm", "cold"), strict=True):
        page.fill("#class-name", name)
    for page in pages:
        page.keyboard.press("Enter")
    for page, name, x in zip(pages, ("warm", "cold"), (RED, BLUE), strict=True):
        page.get_by_text(f"A click means {name}", exact=True).wait_for()
        click(page, x)
        examples(page, name, "1")
    for page in pages:
        page.evaluate("dispatchEvent(new Event('focus'))")  # as for who comes back to it
        examples(page, "warm", "1")
        examples(page, "cold", "1")
        wait_painted(page, RED, color_of(home, "warm"))
        wait_painted(page, BLUE, color_of(home, "cold"))
    assert sorted(one["id"] for one in classes(home)) == [0, 1]


def test_what_was_taught_travels_as_a_file(
    open_page: Callable[..., Any], home: str, photo: Path, tmp_path: Path
) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    begin_with_nothing(page)
    teach(page, "warm", RED)
    teach(page, "cold", BLUE)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "classes.json"
    saved.value.save_as(file)
    row(page, "cold").get_by_role("button", name="More about cold").click()
    page.get_by_role("button", name="Delete class").click()
    row(page, "cold").wait_for(state="detached")
    page.get_by_label("Import", exact=True).and_(page.locator("input")).set_input_files(file)
    examples(page, "cold", "1")
    page.locator("#notice", has_text="classes.json was taken in.").wait_for()
    other = json.loads(file.read_text()) | {"encoder": "0" * 64}
    other["classes"][1]["name"] = "elsewhere"
    file.write_text(json.dumps(other))
    page.get_by_label("Import", exact=True).and_(page.locator("input")).set_input_files(file)
    row(page, "elsewhere").wait_for()
    page.locator("#notice", has_text="another encoder").wait_for()
    assert "aside" in (row(page, "elsewhere").locator(".given").get_attribute("title") or "")
    (tmp_path / "no.json").write_text("{}")
    page.get_by_label("Import", exact=True).and_(page.locator("input")).set_input_files(tmp_path / "no.json")
    page.locator("#notice.bad", has_text="no.json is no file of classes").wait_for()
    page.get_by_role("button", name="Undo").click()
    row(page, "elsewhere").wait_for(state="detached")
    examples(page, "cold", "1")


def test_taught_begins_with_what_was_found(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    rename(page, "red", "wall")
    page.get_by_role("button", name="Teach", exact=True).click()
    teach(page, "warm", GREEN)
    wait_painted(page, GREEN, color_of(home, "warm"))
    for column, name in ((RED, "wall"), (BLUE, "blue"), (WHITE, "white"), (BLACK, "black")):
        wait_painted(page, column, color_of(home, name))
    assert page.locator("#legend").is_hidden(), "one list"
    assert {one["name"]: one["clusters"] for one in classes(home)} == {
        "wall": [0], "green": [1], "blue": [2], "white": [3], "black": [4], "warm": []
    }  # fmt: skip
    for _ in range(2):  # the click, and the class with what was found
        page.get_by_role("button", name="Undo").click()
    page.get_by_text("Taught begins with what was found").wait_for()
    assert classes(home) == []
    for _ in range(2):
        page.get_by_role("button", name="Redo").click()
    examples(page, "warm", "1")
    wait_painted(page, GREEN, color_of(home, "warm"))
    for _ in range(3):
        page.get_by_role("button", name="Undo").click()
    page.locator("#legend button.name", has_text="red").wait_for()  # as the next test finds it


def test_what_was_found_is_added_later(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    begin_with_nothing(page)
    teach(page, "Blue", BLUE)
    wait_painted(page, RED, color_of(home, "Blue"))
    page.get_by_role("button", name="Add what was found").click()
    row(page, "red").wait_for()
    wait_painted(page, RED, color_of(home, "red"))
    assert sorted(one["name"] for one in classes(home)) == ["Blue", "black", "green", "red", "white"]
    assert page.get_by_role("button", name="Add what was found").is_hidden()
    page.get_by_role("button", name="Undo").click()
    row(page, "red").wait_for(state="detached")
    assert [(one["name"], one["clusters"], one["examples"]) for one in classes(home)] == [("Blue", [], 1)]


def test_one_name_for_two_classes_joins_them(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    page.get_by_role("button", name="Begin with what was found").click()
    teach(page, "warm", RED)
    row(page, "warm").get_by_role("button", name="More about warm").click()
    page.get_by_label("New name of warm").fill("green")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Merge", exact=True).click()
    row(page, "warm").wait_for(state="detached")
    examples(page, "green", "1")
    wait_painted(page, RED, color_of(home, "green"))
    assert page.locator(".mark.example").count() == 1
    page.get_by_role("button", name="Undo").click()
    examples(page, "warm", "1")
    wait_painted(page, RED, color_of(home, "warm"))
    assert [one["examples"] for one in classes(home) if one["name"] == "green"] == [0]
    page.mouse.move(0, 0)
    page.locator(".mark.example").click()  # its mark is the class's again
    examples(page, "warm", "–")


def test_a_class_that_somebody_else_deleted(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.keyboard.press("t")
    page.get_by_role("button", name="Begin with what was found").click()
    name_it(page, "tree")
    tree = next(one["id"] for one in classes(home) if one["name"] == "tree")
    urllib.request.urlopen(urllib.request.Request(f"{home}classes/{tree}", method="DELETE")).close()
    click(page, GREEN)
    page.locator("#notice.bad", has_text="Somebody deleted tree meanwhile.").wait_for()
    row(page, "tree").wait_for(state="detached")
    assert page.locator(".mark.example").count() == 0


def test_similar_is_whole_or_gone(open_page: Callable[..., Any], home: str, photo: Path) -> None:
    page = open_page(home)
    give(page, photo)
    page.get_by_role("button", name="Similar", exact=True).click()
    click(page, BLACK)
    page.locator("#notice", has_text="What is clear is like it").wait_for()
    veil = [color_at(page, x, 0.5)[3] for x in (0.9, 0.1)]
    assert veil[0] == 0 < veil[1], "what is alike is clear"
    page.get_by_role("radio", name="fast").check(force=True)
    page.locator("#working").wait_for(state="hidden")
    assert [color_at(page, x, 0.5)[3] for x in (0.9, 0.1)] == veil
    give(page, photo)
    page.get_by_role("button", name="Use as example").wait_for(state="detached")
    page.locator("#notice").wait_for(state="hidden")


def test_the_next_visit_shows_what_was_taught_and_saving_the_other_map_says_so(
    open_page: Callable[..., Any], home: str, photo: Path
) -> None:
    page = open_page(home)
    give(page, photo)
    page.get_by_role("button", name="Teach").click()
    name_it(page, "car")
    click(page, RED)
    page.locator("#side [data-of=classes]", has_text="Taught (1)").wait_for()
    page.reload()
    page.set_input_files("#file", photo)
    page.locator("#side [data-of=classes][aria-pressed=true]", has_text="Taught (1)").wait_for()
    row(page, "car").wait_for()
    page.locator("#side [data-of=clusters]").click()
    page.get_by_role("button", name="Save …").first.click()
    page.locator("dialog", has_text="What you taught is not in it").wait_for()
