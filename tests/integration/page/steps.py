"""What people do on the page, as functions: each ends when what it does is seen."""

import time
from pathlib import Path
from typing import Any


def until(page: Any, expression: str, arg: Any = None, timeout_s: float = 10) -> None:
    """Wait until an expression is true. Playwright's own wait needs eval in the page, which its policy forbids."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {expression}"
        page.wait_for_timeout(20)


def give(page: Any, *photos: Path) -> None:
    """Choose photos; the first of them has its answer."""
    page.set_input_files("#file", [str(one) for one in photos])
    page.locator("#legend li").first.wait_for()
    until(page, "document.getElementById('photo').naturalWidth > 0")


def until_rows(page: Any, count: int) -> None:
    """Wait until the legend has so many rows."""
    until(page, "count => document.querySelectorAll('#legend li[data-id]').length === count", count)


def until_done(page: Any, words: str) -> None:
    """Wait until the last step that can be undone is described so."""
    until(page, "words => document.querySelector('#undo').title.includes(words)", words)


def row(page: Any, name: str) -> Any:
    """The legend's row of a group."""
    return page.locator("#legend li").filter(has=page.get_by_role("button", name=name, exact=True))


def names(page: Any) -> list[str]:
    """What the legend's rows say, from the top."""
    return [str(name) for name in page.locator("#legend button.name").all_text_contents()]


def type_name(page: Any, old: str, new: str) -> None:
    """Type another name for a group, and Enter."""
    row(page, old).locator("button.name").click()
    page.wait_for_selector("input.name:focus")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.type(new)
    page.keyboard.press("Enter")


def rename(page: Any, old: str, new: str) -> None:
    """Give a group another name; the server has answered."""
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        type_name(page, old, new)


def color_at(page: Any, x: float, y: float) -> list[int]:
    """What is painted over the photo at a place given in shares of the view: red, green, blue, opacity."""
    read = "(c, [x, y]) => [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]"
    return list(page.locator("#labels").evaluate(read, [x, y]))


def click(page: Any, x: float, y: float) -> None:
    """A click into the photo, at a place given in shares of it."""
    place = """(canvas, [x, y]) => {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        const { naturalWidth, naturalHeight } = document.getElementById("photo");
        const by = Math.min(width / naturalWidth, height / naturalHeight);
        return [left + width / 2 + (x - 0.5) * naturalWidth * by, top + height / 2 + (y - 0.5) * naturalHeight * by];
    }"""
    page.locator("#labels").scroll_into_view_if_needed()
    page.mouse.click(*page.locator("#labels").evaluate(place, [x, y]))
