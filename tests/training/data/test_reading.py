"""How a run's files are decoded: large ones one at a time, and what is remarked of them told once."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.io.samples import Decoded, Encoded
from training.data import images
from training.data.check import check
from training.data.images import Bands, Found, read_image

PIXELS = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(("working_bytes", "at_once"), [(2**20, 4), (2**30, 1)])
def test_large_images_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working_bytes: int, at_once: int
) -> None:
    inside, seen = [0], []
    meet = threading.Barrier(at_once)

    def decode() -> Decoded:
        inside[0] += 1
        meet.wait(10)
        seen.append(inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return Decoded(PIXELS)

    monkeypatch.setattr(images, "inspect", lambda *_, **__: Encoded((32, 32), working_bytes, decode))
    (tmp_path / "a.png").touch()
    threads = [threading.Thread(target=read_image, args=[tmp_path / "a.png"]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == at_once


def remarked(path: Path, bands: Bands = None) -> Decoded:
    """The first says nothing, every further one one thing more."""
    kinds = tuple(f"band {i} is left out" for i in range(int(path.stem)))
    return Decoded(PIXELS, warnings=(*kinds, *kinds))


def test_remarks_are_told_once_with_how_many_images_they_are_of(tmp_path: Path) -> None:
    said, paths = io.StringIO(), [tmp_path / f"{i}.png" for i in range(11)]
    for path in paths:
        path.touch()
    checked = check(Found(paths, read=remarked), Console(file=said, width=200))
    assert len(checked.paths) == 11
    assert not checked.skipped
    lines = [line for line in said.getvalue().splitlines() if "reading: " not in line]
    assert lines == [
        *(f"{10 - i} images: band {i} is left out" for i in range(8)),
        "and 2 other remarks, each of fewer images",
    ]
