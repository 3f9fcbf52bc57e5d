"""A run's report in a real browser, at three widths, light and dark. Skipped where there is no chromium."""

import shutil
from pathlib import Path

import pytest

from tests.training.finished_run import finished, page

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


def test_nothing_is_fetched_or_cut_off_and_every_picture_is_drawn(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(page(*finished(tmp_path / ("folder-of-a-very-long-name" * 4))), encoding="utf-8")
    asked: list[str] = []
    wrong: list[str] = []
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for width, scheme in ((390, "light"), (1366, "dark"), (1920, "light")):
            shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            shown.on("request", lambda request: asked.append(request.url))
            shown.on("console", lambda message: wrong.append(message.text))
            shown.goto(report.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            shown.evaluate("for (const image of document.images) image.loading = 'eager'")
            shown.wait_for_function("[...document.images].every(image => image.complete)")
            assert shown.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        browser.close()
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    assert wrong == []
