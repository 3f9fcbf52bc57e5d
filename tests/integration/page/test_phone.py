"""On a phone: a tap selects, the photo stays in view, fingers zoom and move it, nothing sticks out sideways."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import give, until
from tests.service.fakes import wait_until

pytestmark = pytest.mark.slow

# What can be clicked and is less than 24 pixels wide or high; links within sentences may be (WCAG 2.5.8).
TARGETS = """() => {
  const kinds = "button, a[href], select, summary, input:not([type=file]), [role=treeitem], label.button";
  const seen = { visibilityProperty: true, opacityProperty: true };
  const shown = [...document.querySelectorAll(kinds)].filter(
    (one) => one.checkVisibility(seen) && !one.closest(".hidden-text, .skip") && !one.matches("p a, .link"));
  const labelOf = (one) => (one.matches("input") ? one.closest("label") : null);
  const targetOf = (one) => labelOf(one) ?? one.querySelector(":scope > .reach") ?? one;
  return shown.flatMap((one) => {
    const { width, height } = targetOf(one).getBoundingClientRect();
    const what = `${one.tagName} ${one.id || one.className} ${one.getAttribute("aria-label") ?? one.textContent}`;
    return Math.min(width, height) < 23.5 ? [`${what}: ${Math.round(width)}×${Math.round(height)}`] : [];
  });
}"""


@pytest.fixture
def phone(open_page: OpenPage, served: str, photo: Path) -> Any:
    """The page at 390×844 with a photo, touched."""
    page = open_page(served, width=390, height=844, has_touch=True, is_mobile=True)
    give(page, photo)
    return page


def fingers(page: Any, kind: str, *places: tuple[float, float]) -> None:
    """Touch the view, move on it, or let go: places are shares of it."""
    box = page.locator("#labels").bounding_box()
    points = [
        {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
        for i, (x, y) in enumerate(places)
    ]
    page.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def overhang(page: Any) -> int:
    """How many pixels of the page stick out sideways."""
    return int(page.evaluate("document.scrollingElement.scrollWidth - innerWidth"))


def scale(page: Any) -> float:
    return float(page.locator("#photo").evaluate("one => one.getBoundingClientRect().width")) / 100


def test_a_tap_selects_and_the_photo_stays_in_view(phone: Any) -> None:
    box = phone.locator("#labels").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert phone.get_by_role("checkbox", name="Select blue", exact=True).is_checked()
    assert phone.locator("#under").text_content() == "blue"
    for name in ("red", "white"):
        phone.get_by_role("checkbox", name=f"Select {name}", exact=True).tap()
    phone.get_by_role("button", name="Merge 3 as").tap()
    until(phone, "document.querySelectorAll('#legend li[data-id]').length === 3")
    phone.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
    box = phone.locator("#view").bounding_box()
    assert box["y"] >= 0
    assert box["height"] > 150
    assert phone.locator("#status").is_visible()
    phone.keyboard.press("Control+z")


def test_two_fingers_zoom_and_one_moves(phone: Any) -> None:
    phone.session = phone.context.new_cdp_session(phone)
    fitted = scale(phone)
    fingers(phone, "touchStart", (0.45, 0.5), (0.55, 0.5))
    for step in range(1, 9):
        fingers(phone, "touchMove", (0.45 - step * 0.04, 0.5), (0.55 + step * 0.04, 0.5))
    fingers(phone, "touchEnd")
    assert scale(phone) > 3 * fitted
    assert not phone.get_by_role("checkbox", checked=True).count(), "that was no tap"
    left = phone.locator("#photo").bounding_box()["x"]
    fingers(phone, "touchStart", (0.5, 0.5))
    for step in range(1, 6):
        fingers(phone, "touchMove", (0.5 - step * 0.05, 0.5))
    fingers(phone, "touchEnd")
    assert phone.locator("#photo").bounding_box()["x"] < left - 50
    phone.wait_for_timeout(500)  # to the browser a tap at once would still be of what the fingers did
    phone.get_by_role("button", name="The whole photo (0)").tap()
    wait_until(lambda: scale(phone) == pytest.approx(fitted))


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_sticks_out_and_every_target_is_large_enough(
    open_page: OpenPage, served: str, photo: Path, width: int
) -> None:
    page = open_page(served, width=width, height=844, has_touch=True, is_mobile=True)
    page.locator("#exemplars li").first.wait_for()
    small: dict[str, list[str]] = {}

    def look(state: str) -> None:
        assert overhang(page) <= 0, state
        small[state] = page.evaluate(TARGETS)

    look("empty")
    give(page, photo)
    look("photo")
    tools = page.locator("#tools")
    assert tools.bounding_box()["height"] < 160, "the photo is not far below"
    redo = page.get_by_role("button", name="Redo", exact=True)
    assert redo.bounding_box()["x"] + redo.bounding_box()["width"] <= width, "nothing has to be moved sideways"
    for name in ("red", "white"):
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
    look("two selected")
    page.get_by_role("button", name="Teach", exact=True).click()
    page.locator("#class-name").wait_for()
    look("teach")
    page.get_by_role("button", name="Save …", exact=True).click()
    dialog = page.get_by_role("dialog")
    page.locator("#save-now").wait_for()
    look("save")
    box = dialog.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.locator("#save-now").bounding_box()["y"] < 844, "its buttons are in view"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clusters", exact=True).click()
    page.locator(".cards li").first.wait_for()
    look("clusters")
    assert {state: found for state, found in small.items() if found} == {}
