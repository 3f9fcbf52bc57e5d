"""Files that ask for more work than a picture of their size should: refused, or read for what they are worth."""

import time
import tracemalloc
from contextlib import suppress

import pytest

from benchmarks.hostile_files import KINDS
from models.io.decode import header_is_bounded, inspect
from models.io.samples import ImageError

LONG = ("png: 20,000² of one bit", "jpeg 2000: what takes long", "dicom: 20,000 elements", "bmp: runs of a pixel")
SHORT = [kind for kind in KINDS if kind not in LONG]
BOUNDED_S = 0.2  # here for a header; on a busy machine several times what it takes


@pytest.mark.parametrize("kind", SHORT + [pytest.param(kind, marks=pytest.mark.slow) for kind in LONG])
def test_a_hostile_file_is_refused_or_read(kind: str) -> None:
    file = KINDS[kind]
    data = file.make()
    if file.outcome == "answered":
        found = inspect(data)
        assert found.decode().image.shape == (*found.size, 3)
        return
    with pytest.raises(ImageError, match=r"\w+ \w+ \w+"):
        inspect(data).decode()


@pytest.mark.timing
@pytest.mark.parametrize("kind", KINDS)
def test_its_header_costs_what_a_header_may(kind: str) -> None:
    data = KINDS[kind].make()
    if not header_is_bounded(data):
        return
    times, peaks = [], []
    for traced in (False, False, True):
        if traced:
            tracemalloc.start()
        began = time.perf_counter()
        with suppress(ImageError):
            inspect(data)
        if traced:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        else:
            times.append(time.perf_counter() - began)
    assert min(times) < BOUNDED_S
    assert max(peaks) < 20e6


def test_what_no_header_bounds_is_known_by_its_kind() -> None:
    assert not header_is_bounded(KINDS["gif: 10,000 frames"].make())
    assert header_is_bounded(KINDS["tiff: 1,000 directories"].make())
    assert header_is_bounded(b"nothing that anybody reads")
    assert inspect(KINDS["jpeg: 4,000 segments"].make()).seconds < 0.001
    assert inspect(KINDS["tiff: 1,000 directories"].make()).seconds == float("inf")
    assert inspect(KINDS["jpeg: 90 scans"].make()).seconds > 0.5
    with pytest.raises(ImageError):
        inspect(KINDS["jpeg: cut"].make()[:200])
    assert inspect(KINDS["jpeg: cut"].make()).seconds == float("inf")
