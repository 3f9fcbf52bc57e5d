"""Networks as they are: slow, cut, away; servers that are busy or full: it is said, and nothing is lost."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from models.io.encode import encode
from tests.integration.page.steps import click, give, names, rename, row, type_name
from tests.service.fakes import wait_until
from tests.tiny import bands

pytestmark = pytest.mark.slow
SILENT = "The server does not answer"


def problem(route: Any, status: int, detail: str, **headers: str) -> None:
    body = json.dumps({"title": "refused", "status": status, "detail": detail})
    route.fulfill(status=status, body=body, content_type="application/problem+json", headers=headers)


def test_on_a_slow_network_the_photo_is_there_at_once_and_the_latest_counts(page: Any, tmp_path: Path) -> None:
    for name, order in (("one.png", (0, 1, 2, 3, 4)), ("two.png", (2, 2, 2, 2, 4))):
        (tmp_path / name).write_bytes(encode(bands(60, 100, order), "png"))

    held: list[Any] = []
    page.route("**/segment?*", lambda route: held.append(route))
    page.set_input_files("#file", tmp_path / "one.png")
    wait_until(lambda: page.locator("#photo").evaluate("one => one.naturalWidth") == 100)
    assert page.locator("#working").is_visible()
    assert names(page) == []
    page.set_input_files("#file", tmp_path / "two.png")
    wait_until(lambda: page.title().startswith("two.png") and len(held) == 2)
    held[1].continue_()
    page.unroute("**/segment?*")
    page.locator("#legend li").first.wait_for()
    assert names(page) == ["blue", "black"]
    page.locator("#working").wait_for(state="hidden")


def test_a_server_that_is_busy_is_asked_again(page: Any, photo: Path) -> None:
    refused: list[float] = []

    def busy(route: Any) -> None:
        if len(refused) == 2:
            return route.continue_()
        refused.append(time.monotonic())
        return problem(route, 503, "too many requests wait", **{"retry-after": "1"})

    page.route("**/segment?*", busy)
    page.set_input_files("#file", photo)
    page.get_by_text("The server is busy; asking again in 1 s").wait_for()
    page.wait_for_selector("#legend li")
    assert refused[1] - refused[0] > 0.9
    assert page.locator("#notice").is_hidden()


def test_a_cut_connection_is_said_and_the_way_back_is_found(page: Any, photo: Path) -> None:
    page.route("**/segment?*", lambda route: route.abort("connectionreset"))
    page.set_input_files("#file", photo)
    page.locator("#notice.bad", has_text=SILENT).wait_for()
    assert names(page) == []
    page.unroute("**/segment?*")
    page.get_by_text("fast", exact=True).click()  # any other question does
    page.wait_for_selector("#legend li")
    page.locator("#notice.bad").wait_for(state="hidden")


def test_offline_nothing_that_was_seen_is_lost(page: Any, photo: Path) -> None:
    give(page, photo)
    page.context.set_offline(True)
    type_name(page, "blue", "lake")
    page.locator("#notice.bad", has_text=SILENT).wait_for()
    assert page.locator("input.name").input_value() == "lake", "what was typed is not lost"
    page.keyboard.press("Escape")
    assert "blue" in names(page)
    for button in ("Teach", "Clusters", "Photo", "Save …"):
        page.get_by_role("button", name=button, exact=True).click()
        page.locator("#notice.bad", has_text=SILENT).wait_for()
    page.get_by_role("button", name="Pick", exact=True).click()
    page.get_by_role("button", name="Similar", exact=True).click()
    click(page, 0.5, 0.5)
    page.locator("#notice.bad", has_text=SILENT).wait_for()
    assert len(names(page)) == 5
    page.context.set_offline(False)
    rename(page, "blue", "lake")
    row(page, "lake").wait_for()
    page.get_by_role("button", name="Clusters", exact=True).click()
    page.locator(".cards li").first.wait_for()
    page.get_by_role("button", name="Photo", exact=True).click()
    page.get_by_role("button", name="Save …", exact=True).click()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    row(page, "blue").wait_for()


def test_a_server_without_room_is_quoted(page: Any, photo: Path) -> None:
    give(page, photo)
    page.route("**/clusters/*", lambda route: problem(route, 507, "no room for names: free some disk"))
    type_name(page, "blue", "lake")
    page.locator("#notice.bad", has_text="free some disk").wait_for()
    assert page.locator("input.name").input_value() == "lake", "what was typed is not lost"
    page.keyboard.press("Escape")
    assert "blue" in names(page)
    assert page.locator("#undo").get_attribute("aria-disabled") == "true"
