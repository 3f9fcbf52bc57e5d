"""As a newcomer told no more than: find the road, call it road, join the houses, tell it what a car is, save for COCO.

By what stands on the page and its roles alone, on a street that the page draws, with the embedded default.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import embedded
from tests.integration.page.conftest import OpenPage
from tests.integration.page.steps import click
from tests.service.process import process

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """The address of a server as `tessera serve` starts it."""
    with process(embedded()[0], tmp_path / "state") as (_, port):
        yield f"http://127.0.0.1:{port}/"


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def shares_of(page: Any) -> dict[str, float]:
    """What Taught says of each class that is in the photo: its percentage, by its name."""
    rows = page.locator(".classes > li", has=page.locator(".share"))
    rows.first.wait_for()
    names, shares = rows.locator(".called").all_text_contents(), rows.locator(".share").all_text_contents()
    return {name: float(share.removesuffix(" %")) for name, share in zip(names, shares, strict=True)}


def selected(page: Any) -> str:
    """The name of what is selected, of the one row that is ticked."""
    ticked = page.get_by_role("checkbox", checked=True)
    ticked.first.wait_for()
    assert ticked.count() == 1
    return str(ticked.first.get_attribute("aria-label")).removeprefix("Select ")


def test_find_name_join_teach_save(open_page: OpenPage, home: str) -> None:
    page = open_page(home)
    button(page, "Parked cars").click()
    page.get_by_role("heading", name="What is there").wait_for()
    page.get_by_role("checkbox").first.wait_for()

    # Find the road, call it road.
    click(page, 0.5, 0.75)
    road = selected(page)
    page.get_by_role("button", name=road, exact=True).click()
    page.keyboard.type("road")
    page.keyboard.press("Enter")
    button(page, "road").wait_for()

    # Join the houses: two places of the row of houses that are two things.
    rows = page.get_by_role("checkbox")
    before = rows.count()
    page.keyboard.press("Escape")
    houses = []
    for x, y in ((0.08, 0.5), (0.92, 0.5), (0.3, 0.45), (0.7, 0.45), (0.05, 0.3), (0.95, 0.3)):
        click(page, x, y)
        name = selected(page)
        if name not in houses and name != "road":
            houses.append(name)
    assert len(houses) >= 2
    page.keyboard.press("Escape")
    for name in houses[:2]:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
    page.get_by_role("button", name="Merge 2 as").click()
    page.wait_for_timeout(300)
    assert rows.count() == before - 1

    # Tell it what a car is: what was found stays beside it, in the names that it has.
    button(page, "Teach").click()
    page.get_by_placeholder("New class").fill("car")
    button(page, "Add").click()
    page.get_by_text("A click means car", exact=True).wait_for()
    click(page, 0.85, 0.82)
    page.get_by_role("heading", name="Least sure here").wait_for()
    page.locator(".classes > li", has_text="car").locator(".share").wait_for()
    shares = shares_of(page)
    assert 0 < shares["car"] < 40
    assert shares["road"] > 10
    assert houses[0] in shares or houses[1] in shares

    # Save the result for COCO.
    button(page, "Save …").click()
    page.get_by_role("radio", name="COCO", exact=False).first.check()
    with page.expect_download() as saved:
        page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
    document = json.loads(Path(saved.value.path()).read_text())
    assert {"car", "road"} <= {one["name"] for one in document["categories"]}
    assert document["annotations"]
