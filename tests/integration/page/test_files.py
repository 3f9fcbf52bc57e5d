"""Several photos, folders, pages of a file: what is shown, what became of each, that nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from models.io.encode import encode
from tests.integration.page.steps import color_at, give, names
from tests.service.fakes import wait_until
from tests.tiny import COLORS, bands

pytestmark = pytest.mark.slow


def drawn(folder: Path, *names: str, order: tuple[int, ...] = (0, 1, 2, 3, 4)) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(encode(bands(60, 100, order), "png"))
    return [folder / name for name in names]


def labels(page: Any) -> list[str]:
    """What is said of each photo in the strip."""
    return list(page.locator(".thumb").evaluate_all("all => all.map((one) => one.ariaLabel)"))


def current(page: Any) -> str:
    return str(page.locator(".thumb[aria-current=true]").get_attribute("title"))


def test_a_strip_of_photos_by_keyboard(page: Any, tmp_path: Path) -> None:
    give(page, *drawn(tmp_path, "10.png", "9.png", "1.png"), *drawn(tmp_path, "notes.txt"))
    page.locator("#progress", has_text="3 of 3").wait_for()
    assert labels(page) == ["1.png, 1 of 3, done", "9.png, 2 of 3, done", "10.png, 3 of 3, done"]  # as people count
    assert page.text_content("#notice") == "Left out, as they are no images: 1"
    page.keyboard.press("PageDown")
    wait_until(lambda: current(page) == "9.png")
    page.locator(".thumb[aria-current=true]").focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: current(page) == "10.png")
    assert page.evaluate("document.activeElement.title") == "10.png"
    page.keyboard.press("Delete")
    wait_until(lambda: len(labels(page)) == 2)
    wait_until(lambda: page.evaluate("document.activeElement.title") == current(page) == "9.png")
    page.keyboard.press("Control+z")
    wait_until(lambda: len(labels(page)) == 3)
    page.click("#remove-all")
    page.wait_for_selector("#drop")
    assert page.locator("#strip, #tools, #side").evaluate_all("all => all.every(one => one.hidden)")
    page.click("#bring-back")
    wait_until(lambda: len(labels(page)) == 3)
    page.wait_for_selector("#legend li")


def test_a_dropped_folder_is_opened(page: Any, tmp_path: Path) -> None:
    top = tmp_path / "drive"
    drawn(top, "2.png", "10.png", ".hidden.png")
    drawn(top / "night", *(f"{n}.png" for n in range(120)))  # browsers hand out a hundred at a time
    (top / "list.csv").write_text("a")
    page.wait_for_selector("#drop")
    session = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 200, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", slow)
    data = {"items": [], "files": [str(top)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
    page.locator("#progress", has_text="of 122").wait_for()
    assert labels(page)[0].startswith("drive/2.png, 1 of 122")
    assert labels(page)[2].startswith("drive/night/0.png")
    assert page.text_content("#notice") == "Left out, as they are no images: 1"
    page.click("#stop")
    wait_until(lambda: page.locator(".thumb[data-state=working]").count() == 0)
    assert 0 < page.locator(".thumb[data-state=waiting]").count() < 122
    session.send("Network.emulateNetworkConditions", {**slow, "latency": 0})
    page.click("#stop")
    page.locator("#progress", has_text="122 of 122").wait_for(timeout=60_000)
    drawn_now = "[...document.querySelectorAll('#thumbs li')].filter(one => one.drawn).length"
    assert 0 < page.evaluate(drawn_now) < 40  # those out of view have no picture yet


def test_a_chosen_folder_is_opened(page: Any, tmp_path: Path) -> None:
    top = tmp_path / "drive"
    drawn(top, "2.png", "1.png")
    drawn(top / "a", "1.png")
    page.set_input_files("#folder", top)
    page.locator("#progress", has_text="3 of 3").wait_for()
    assert [one.split(",")[0] for one in labels(page)] == ["drive/1.png", "drive/2.png", "drive/a/1.png"]


def test_after_a_bad_file_nothing_is_left_of_the_photo_before(page: Any, photo: Path, tmp_path: Path) -> None:
    give(page, photo)
    (tmp_path / "bad.png").write_bytes(b"no image")
    page.set_input_files("#file", tmp_path / "bad.png")
    page.locator("#notice.bad", has_text="not an image").wait_for()
    assert current(page).startswith("bad.png: these bytes are not an image")
    assert names(page) == []
    assert color_at(page, 0.5, 0.5) == [0, 0, 0, 0]
    assert width(page) == 0
    page.locator("#thumbs li").first.locator(".thumb").click()
    page.wait_for_selector("#legend li")
    assert page.locator("#notice").is_hidden()
    assert labels(page)[1] == "bad.png, 2 of 2, failed"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.click("#failed")  # another try
    page.locator("#notice.bad", has_text="not an image").wait_for()
    assert any("/segment" in url for url in asked)


def test_a_file_that_went_away_is_told_by_its_name(page: Any, photo: Path, tmp_path: Path) -> None:
    give(page, photo, *drawn(tmp_path, "z.png"))
    page.locator("#progress", has_text="2 of 2").wait_for()
    (tmp_path / "z.png").write_bytes(b"another")
    page.locator("[name=edges][value=fast]").check(force=True)
    page.locator("#progress", has_text="1 of 2 photos, 1 failed").wait_for()
    assert "z.png can be read no more" in str(page.locator(".thumb").nth(1).get_attribute("title"))


def test_pages_of_a_file(page: Any, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for first in range(3):
            file.write(bands(60, 100, tuple(np.roll(range(5), first))), photometric="rgb")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    give(page, tmp_path / "pages.tif")
    assert page.text_content("#pages").strip().startswith("‹Page")
    found = [cluster_at(page)]
    for go in (lambda: page.click("#page-on"), lambda: (page.fill("#page-number", "3"), page.keyboard.press("Enter"))):
        asked.clear()
        go()
        wait_until(lambda: cluster_at(page) not in (None, found[-1]) and width(page) == 100)
        found.append(cluster_at(page))
        assert all(f"page={len(found) - 1}" in url for url in asked if "/segment" in url)
        assert sum("/segment" in url for url in asked) == 2  # its labels, and its picture
    assert found == [1, 0, 4]
    page.fill("#page-number", "99")
    page.keyboard.press("Enter")
    assert page.input_value("#page-number") == "3"


def cluster_at(page: Any) -> int | None:
    """Which of the tiny bundle's clusters is painted at a quarter of the width; None: nothing is."""
    *color, opacity = color_at(page, 0.25, 0.5)
    return int(np.abs(np.array(list(COLORS.values())) - color).sum(1).argmin()) if opacity else None


def width(page: Any) -> int:
    return int(page.locator("#photo").evaluate("img => img.naturalWidth"))


def test_a_large_photo_is_zoomed_and_moved_without_a_stop(page: Any, tmp_path: Path) -> None:
    small = bands(300, 400)
    (tmp_path / "large.jpg").write_bytes(encode(np.repeat(np.repeat(small, 10, 0), 10, 1), "jpeg"))
    give(page, tmp_path / "large.jpg")
    wait_until(lambda: width(page) == 4000)
    page.evaluate("""() => {
        window.longest = [];
        const add = (list) => longest.push(...list.getEntries().map((one) => one.duration));
        new PerformanceObserver(add).observe({ entryTypes: ["longtask"] });
    }""")
    page.mouse.move(450, 350)
    for _ in range(8):
        page.mouse.wheel(0, -120)
        page.wait_for_timeout(30)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(450 + 10 * step, 350 + 5 * step)
    page.mouse.up()
    for step in range(20):
        page.mouse.move(250 + 20 * step, 300)
    page.wait_for_timeout(300)
    print("long tasks, ms:", page.evaluate("longest"))
    assert page.evaluate("Math.max(0, ...longest)") < 200
    assert "zoomed" in page.locator("#view").get_attribute("class")
