"""The view of clusters: the tree, pictures, neighbors; naming, coloring, merging, hiding, without any photo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.page.steps import give, names
from tests.service.fakes import wait_until

pytestmark = pytest.mark.slow


def titles(page: Any) -> list[str]:
    """What the cards say, from the top."""
    return list(page.locator(".cards .title").evaluate_all("all => all.map(one => one.value)"))


def look(page: Any) -> None:
    page.get_by_role("button", name="Clusters", exact=True).click()
    page.locator(".cards > li").first.wait_for()


def card(page: Any, name: str) -> Any:
    return page.locator(".cards > li").filter(has=page.get_by_label(f"Name of {name}", exact=True))


def test_clusters_without_a_photo(open_page: Callable[..., Any], served: str, photo: Path) -> None:
    page = open_page(served)
    look(page)
    assert sorted(titles(page)) == ["black", "blue", "green", "red", "white"]
    pictures = page.locator(".exemplars img")
    wait_until(lambda: bool(pictures.evaluate_all("all => all.every(one => one.naturalWidth > 0)")))
    assert page.locator(".near").first.locator(".neighbor").count() == 3
    page.get_by_label("Filter by name").fill("bl")
    assert sorted(titles(page)) == ["black", "blue"]
    page.get_by_label("Filter by name").fill("")

    page.get_by_label("Name of red", exact=True).fill("brick")
    page.keyboard.press("Enter")
    card(page, "brick").get_by_role("button", name="Call it red again").wait_for()
    card(page, "brick").get_by_label("Merge brick into").select_option(label="blue")
    card(page, "brick").get_by_role("button", name="Take brick apart from blue").wait_for()
    card(page, "white").get_by_role("button", name="Hide white").click()
    card(page, "white").get_by_role("button", name="Show white").wait_for()

    page.get_by_role("button", name="Photo", exact=True).click()
    give(page, photo)
    assert sorted(names(page)) == ["black", "blue", "green", "white"]
    look(page)
    for _ in range(3):
        page.locator("#clusters-view").get_by_role("button", name="Undo").click()
    card(page, "red").get_by_label("Merge red into").wait_for()
    page.get_by_role("button", name="Photo", exact=True).click()
    assert sorted(names(page)) == ["black", "blue", "green", "red", "white"]


def test_the_tree_by_keyboard(open_page: Callable[..., Any], served: str) -> None:
    page = open_page(served)
    look(page)
    items = page.get_by_role("treeitem")
    assert items.count() == 9  # five clusters, four places where branches meet
    page.locator("[role=treeitem][tabindex='0']").focus()
    said = page.locator(".said")
    assert "100.0 % of the training pixels" in said.text_content()
    assert page.locator(".cards > li.lit").count() == 5
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator(".cards > li.lit").count() == 1
    page.keyboard.press("ArrowLeft")
    lit = page.locator(".cards > li.lit")
    assert lit.count() >= 2
    together = lit.count()
    page.get_by_role("button", name=f"Merge these {together}").click()
    page.locator(".cards").get_by_role("button", name="apart from").nth(together - 2).wait_for()
    page.locator("#clusters-view").get_by_role("button", name="Undo").click()
    page.locator(".cards").get_by_role("button", name="apart from").first.wait_for(state="detached")


def test_it_fits_a_phone(open_page: Callable[..., Any], served: str) -> None:
    page = open_page(served, width=390, height=844)
    look(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.get_by_role("treeitem").evaluate_all(
        "all => all.map(one => one.querySelector('.reach').getBoundingClientRect().height)"
    )
    assert min(sizes) >= 24
