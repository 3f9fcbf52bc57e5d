"""The performance of feeling: what is painted anew is painted within a frame, from one label map, asking nobody."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import page as measured
from models.io.encode import encode
from tests.integration.page.conftest import OpenPage
from training.data.synthetic import street

pytestmark = [pytest.mark.slow, pytest.mark.timing]


@pytest.fixture
def watched(open_page: OpenPage, served: str) -> Any:
    """The page at 1366×768, with its frames and long tasks timed."""
    page = open_page(served)
    page.add_init_script(measured.WATCH)
    page.reload()
    return page


def test_a_photo_of_12_megapixels_is_painted_anew_within_a_frame(watched: Any, tmp_path: Path) -> None:
    photo = tmp_path / "street.jpg"
    photo.write_bytes(encode(street((3000, 4000), seed=0), "jpeg"))
    opened = measured.opening(watched, [photo])
    found = measured.redraws(watched)
    print(opened, {name: (round(one.median_ms, 1), one.requests) for name, one in found.items()})
    assert {name: one.median_ms for name, one in found.items() if one.median_ms > measured.FRAME_MS} == {}
    assert {name: one.requests for name, one in found.items() if one.requests} == {}
    assert opened.longest_task_ms < 400


def test_hundreds_of_photos_hold_nothing_up(watched: Any, tmp_path: Path) -> None:
    small = encode(street((120, 160), seed=1), "jpeg")
    photos = [tmp_path / f"{n}.jpg" for n in range(400)]
    for photo in photos:
        photo.write_bytes(small)
    opened = measured.opening(watched, photos)
    assert opened.longest_task_ms < 500
    assert opened.seconds < 5
    watched.locator("#progress", has_text="of 400").wait_for()
