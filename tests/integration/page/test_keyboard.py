"""Without a mouse: all that can be done on the page, the focus always somewhere, and told to who cannot see it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import until, until_done, until_rows
from tests.service.process import process

pytestmark = pytest.mark.slow


@pytest.fixture
def page(open_page: OpenPage, tiny_bundle: Path, tmp_path: Path) -> Iterator[Any]:
    """The page of a server where nobody has said anything."""
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        yield open_page(f"http://127.0.0.1:{port}/")


def focused(page: Any) -> str:
    """The name, or the text, of what has the focus."""
    return str(
        page.evaluate("""() => {
            const one = document.activeElement;
            const label = one.labels?.[0]?.textContent.trim();
            if (one === document.body) return "nothing";
            return one.getAttribute("aria-label") || label || one.textContent.trim() || one.id;
        }""")
    )


def tab_to(page: Any, name: str, key: str = "Tab", most: int = 60) -> None:
    """Press Tab until something is focused; what is focused can be seen."""
    seen = []
    for _ in range(most):
        page.keyboard.press(key)
        seen.append(focused(page))
        assert seen[-1] != "nothing" or key == "Tab", seen
        if seen[-1] == name:
            return
    raise AssertionError(f"{name} is not reached: {seen}")


def told(page: Any, words: str) -> None:
    """Wait until the page tells this to who hears it."""
    page.locator("#live", has_text=words).wait_for(state="attached")


def press(page: Any, *keys: str) -> None:
    """Press keys; afterwards something has the focus."""
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(150)
    assert focused(page) != "nothing", keys


def test_everything_by_keys(page: Any, photo: Path) -> None:
    tab_to(page, "Choose photos")
    assert "3px" in page.locator("#drop").evaluate("one => getComputedStyle(one).outline"), (
        "what is large shows the focus"
    )
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    until_rows(page, 5)

    # Name a row, hide it, show it again.
    tab_to(page, "Select red")
    press(page, "n")
    assert focused(page) == "New name of red"
    page.keyboard.type("roof")
    press(page, "Enter")
    assert focused(page) == "roof"
    told(page, "red is called roof")
    press(page, "h")
    told(page, "roof is hidden")
    press(page, "h")
    told(page, "roof is shown")

    # Merge two, and take that back.
    tab_to(page, "Select blue")
    press(page, "Space")
    tab_to(page, "Select white")
    press(page, "Space", "m")
    until_rows(page, 4)
    assert focused(page) in ("New name of blue", "New name of white")
    press(page, "Control+z")
    until_rows(page, 5)
    told(page, "Undone")
    press(page, "Control+Shift+z")
    until_rows(page, 4)
    press(page, "Control+z")
    until_rows(page, 5)

    # The photo: what is under the pointer is told, Enter is a click.
    page.locator("#labels").focus()
    press(page, "Escape", "Escape", "ArrowRight")
    told(page, "blue")
    press(page, "Enter")
    assert page.get_by_role("checkbox", name="Select blue", exact=True).is_checked()
    press(page, "+", "+")
    assert "zoomed" in str(page.locator("#view").get_attribute("class"))
    press(page, "0")

    # Teach two classes, and answer a question.
    press(page, "t")
    page.wait_for_selector("#class-name:focus")
    for name, keys in (("lake", ()), ("wood", ("Shift+ArrowLeft",) * 6)):
        if focused(page) != "New class, e.g. car":
            tab_to(page, "New class, e.g. car")
        page.keyboard.type(name)
        press(page, "Enter")
        until_done(page, name)
        page.locator("#labels").focus()
        press(page, *(keys or ("ArrowRight",)), "Enter")
        told(page, name)
    page.wait_for_selector("#teach .places li")
    before = page.locator("#marks .example").count()
    page.locator("#teach .places button").first.focus()
    press(page, "Enter")
    until(page, "count => document.querySelectorAll('#marks .example').length > count", before)
    assert focused(page) != "nothing"

    # The clusters, and back.
    page.locator("#to-clusters").focus()
    press(page, "Enter")
    page.wait_for_selector(".cards li")
    page.locator("[role=treeitem][tabindex='0']").focus()
    press(page, "ArrowRight", "ArrowDown")
    assert "belong" in str(page.locator(".said").text_content()) or page.locator(".lit").count() > 0
    page.locator("#to-photo").focus()
    press(page, "Enter")

    # Save a picture.
    page.locator("#save").focus()
    press(page, "Enter")
    page.wait_for_selector("#save-now")
    page.get_by_role("radio").first.focus()
    press(page, "ArrowDown")
    page.locator("#save-now").focus()
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.suggested_filename.endswith(".jpg")
    page.wait_for_selector("#save-stop", state="hidden")
    press(page, "Escape")
    assert page.evaluate("document.activeElement.id") == "save"


def test_tab_goes_through_the_page_in_its_order_and_is_always_seen(page: Any, photo: Path) -> None:
    page.set_input_files("#file", photo)
    until_rows(page, 5)
    page.evaluate("document.activeElement.blur()")
    seen: list[dict[str, Any]] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        one = page.evaluate(STOP)
        if one is None or (seen and one["key"] == seen[0]["key"]):
            break
        seen.append(one)
    assert len(seen) > 20
    assert [one["key"] for one in seen if not one["named"]] == []
    assert [one["key"] for one in seen if not one["shown"]] == []
    order = [one["part"] for one in seen]
    assert order == sorted(order), "header, tools, photo, side: as they are read"
    assert len([one for one in seen if one["part"] == 1]) == 1, "the row of tools is one stop"


# What has the focus: whether it has a name, and an outline; which part of the page it is in.
STOP = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const label = one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent || one.title;
  const outlined = (one) => {
    const { outlineWidth, outlineStyle } = getComputedStyle(one);
    return parseFloat(outlineWidth) >= 2 && outlineStyle !== "none";
  };
  const near = [one, ...(one.labels ?? []), one.nextElementSibling, one.parentElement];
  const part = ["header, .skip", "#tools", "#stage", "#side", "footer"].findIndex((where) => one.closest(where));
  const shown = near.filter(Boolean).some(outlined);
  return { key: one.id || one.dataset.key || label, named: Boolean(label.trim()), part, shown };
}"""
