"""training/data/regions.py: cutting, caching, averaging."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from models.errors import TesseraError
from models.native import bindings
from training.data import arrays
from training.data.errors import DataError
from training.data.images import read_image
from training.data.regions import RegionOptions, cover, equalize, open_regions, segment, segment_at, thinned
from training.features.region_codes import coarse, pool, region_codes

OPTIONS = RegionOptions(size=(32, 48), scales=(50.0,))
QUIET = Console(quiet=True)


def halves(left: int, right: int) -> np.ndarray:
    image = np.full((32, 48, 3), left, np.uint8)
    image[:, 24:] = right
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        Image.fromarray(halves(10 + i, 240)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_two_even_halves_are_two_regions() -> None:
    ids = segment(halves(0, 255), scale=50, min_size_px=20, sigma=0)
    assert ids.dtype == np.uint16
    assert ids.shape == (32, 48)
    assert len(np.unique(ids)) == 2
    assert ids[0, 0] != ids[0, -1]


def test_equalizing_widens_what_little_contrast_there_is() -> None:
    dark = np.random.default_rng(0).integers(5, 30, (32, 48, 3), dtype=np.uint8)
    even = equalize(dark, 0.05)
    assert even.shape == dark.shape
    assert even.std() > 2 * dark.std()


def test_cover_fills_the_size_and_keeps_the_center() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 45:55] = 200
    out = cover(image, (20, 20))
    assert out.shape == (20, 20, 3)
    assert out[:, 9:11].min() > 100
    assert out[:, 0].max() == 0


def test_pool_is_the_mean_over_each_region() -> None:
    maps = torch.randn(2, 3, 4, 5)
    ids = torch.randint(-1, 3, (2, 4, 5))
    means, cells = pool(maps, ids, 4)
    assert cells[:, 3].eq(0).all()
    assert means[:, 3].eq(0).all()
    for b in range(2):
        for r in range(3):
            inside = ids[b] == r
            assert cells[b, r] == inside.sum()
            if inside.any():
                torch.testing.assert_close(means[b, r], maps[b][:, inside].mean(1))


def test_coarse_takes_the_id_at_the_middle_of_a_cell() -> None:
    ids = np.zeros((1, 4, 4), np.uint16)
    ids[0, 1:, 1:] = 7
    assert coarse(ids, (2, 2)).tolist() == [[[7, 7], [7, 7]]]


def test_regions_are_cut_once_and_read_from_disk_afterwards(folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.glob("*.png"), reverse=True)
    first = open_regions(paths, OPTIONS, tmp_path / "cache", QUIET, workers=1)
    assert [p.name for p in first.paths] == ["0.png", "1.png", "2.png"]
    assert first.images.shape == (3, 32, 48, 3)
    assert first.regions.shape == (3, 1, 32, 48)
    assert first.counts.tolist() == [[2], [2], [2]]
    (home,) = (tmp_path / "cache").iterdir()
    stamp = (home / "regions.npy").stat().st_mtime_ns
    again = open_regions(paths, OPTIONS, tmp_path / "cache", QUIET, workers=1)
    assert (home / "regions.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(first.regions, again.regions)
    codes = region_codes(lambda pixels: pixels.movedim(-1, 1).float()[:, :, ::4, ::4], again, batch_size=2)
    assert codes.codes.shape == (6, 3)
    assert codes.image.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(codes.center[:, 0], torch.full((6,), 0.5))
    assert codes.codes[:, 0].sort().values.tolist() == [10, 11, 12, 240, 240, 240]


def test_other_scales_are_other_regions(folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.glob("*.png"))
    open_regions(paths[:1], OPTIONS, tmp_path / "cache", QUIET, workers=1)
    other = OPTIONS.model_copy(update={"scales": (60.0,)})
    open_regions(paths[:1], other, tmp_path / "cache", QUIET, workers=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")
@pytest.mark.parametrize("sigma", [0.5, 0.8, 2.0])  # 0 leaves many differences equal
def test_compiled_regions_are_scikit_images(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 83, 3), np.uint8)
    soft = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((83, 60)))
    flat = np.full((1, 40, 3), 9, np.uint8)
    for image in (noise, soft, flat):
        cut = {"scales": (50.0, 300.0), "min_sizes_px": (1, 40), "sigma": sigma}
        mine, even = segment_at(image, **cut), [equalize(image, limit) for limit in (0.01, 0.03, 1.0)]
        with monkeypatch.context() as without:
            without.setattr(bindings, "_library", lambda: None)
            assert np.array_equal(mine, segment_at(image, **cut))
            if image is not flat:  # scikit-image cannot pad a line
                assert np.array_equal(even, [equalize(image, limit) for limit in (0.01, 0.03, 1.0)])


@pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")
def test_equal_differences_go_in_the_order_of_the_pixels() -> None:
    """What is too small joins the first of two neighbors that are equally far."""
    image = np.zeros((1, 7, 3), np.uint8)
    image[0, :, 0] = [0, 0, 0, 100, 200, 200, 200]
    assert segment(image, scale=10, min_size_px=1, sigma=0).tolist() == [[0, 0, 0, 1, 2, 2, 2]]
    assert segment(image, scale=10, min_size_px=3, sigma=0).tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_what_one_release_earlier_cut_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.glob("*.png"))
    first = open_regions(paths, OPTIONS, tmp_path / "cache", QUIET)
    (home,) = (tmp_path / "cache").iterdir()
    for name in ("done", "lock"):
        (home / name).unlink()
    stamp = (home / "regions.npy").stat().st_mtime_ns
    assert np.array_equal(open_regions(paths, OPTIONS, tmp_path / "cache", QUIET).regions, first.regions)
    assert (home / "regions.npy").stat().st_mtime_ns == stamp


KILLED = """
import sys, time
from pathlib import Path
from rich.console import Console
from training.data import regions
from training.data.images import read_image

def slow(path, bands):
    if path.name == "2.png":
        print("two are cut", flush=True)
        time.sleep(60)
    return read_image(path, bands)

regions._SECONDS_BETWEEN_FLUSHES = 0
folder = Path(sys.argv[1])
options = regions.RegionOptions(size=(32, 48), scales=(50.0,))
regions.open_regions(sorted(folder.glob("*.png")), options, folder / "cache", Console(quiet=True), workers=1, read=slow)
"""


def test_a_killed_cutting_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as said:
        said.readline()
    done = next((tmp_path / "cache").iterdir()) / "done"
    until = time.monotonic() + 10
    while done.read_text() != "2" and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    read = list[str]()

    def remembered(path: Path, bands: tuple[int, ...] | None) -> object:
        read.append(path.name)
        return read_image(path, bands)

    paths = sorted(folder.glob("*.png"))
    found = open_regions(paths, OPTIONS, tmp_path / "cache", QUIET, read=remembered)
    assert read == ["2.png"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    whole = open_regions(paths, OPTIONS, tmp_path / "other", QUIET)
    assert np.array_equal(found.regions, whole.regions)
    assert np.array_equal(found.images, whole.images)
    assert found.counts.tolist() == whole.counts.tolist()


def test_a_disk_without_room_is_told_before_anything_is_cut(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(TesseraError, match=r"regions take 0\.0 GB .* --out"):
        open_regions(sorted(folder.glob("*.png")), OPTIONS, tmp_path / "cache", QUIET)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_image_that_vanished_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        open_regions([*folder.glob("*.png"), folder / "gone.png"], OPTIONS, tmp_path / "cache", QUIET)


def test_of_more_images_than_are_drawn_some_are_cut_evenly() -> None:
    paths = [Path(f"{i}.png") for i in range(100)]
    assert [path.name for path in thinned(paths, 30)] == [f"{i}.png" for i in range(0, 100, 4)]
    assert thinned(paths, 100) == thinned(paths, None) == paths


def test_a_broken_image_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(Exception, match=r".+"):
        open_regions(sorted(folder.glob("*.png")), OPTIONS, tmp_path / "cache", QUIET, workers=1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_cannot_be_cut_says_why(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match="--data"):
        open_regions([], OPTIONS, tmp_path, QUIET)
