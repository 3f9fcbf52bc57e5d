"""Arrays are judged by their headers: what these claim is refused before it is made room for."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models import bundle
from models.bundle import Bundle, BundleError
from models.bundle_arrays import read_npy, read_npz
from tests.bad_bundles import claiming, npy, put_right, zipped
from tests.models.stripes import parts, thirds


def judge(dtype: np.dtype, shape: tuple[int, ...]) -> str | None:
    return None if shape == (2, 3) else "2×3 is needed"


def test_an_array_comes_back_as_it_was_saved() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for order in ("C", "F"):
        assert (read_npy(npy(np.asarray(array, order=order)), "a.npy", judge) == array).all()
    got = read_npz(zipped({"a.npy": npy(array), "b.npy": npy(array * 2)}), "ab.npz", {"a": judge, "b": judge})
    assert (got["b"] == 2 * got["a"]).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cannot be read"),
        (npy(np.zeros((3, 2))), "2×3 is needed"),
        (claiming("(1000000, 1000000)", "<f4"), "2×3 is needed"),
        (claiming("(2, 3)", "<f4"), "fewer bytes than it says"),
        (claiming("(2, 3)", "<i2"), "more bytes than it says"),
        (claiming("(" * 3000 + ")" * 3000, "<f4"), "cannot be read"),
        (npy(np.array([{"a": 1}], object)), "pickled"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(100), r"version 2\.0"),
    ],
)
def test_what_an_array_claims_is_held_against_what_it_brings(data: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        read_npy(data, "a.npy", judge)
    with pytest.raises(BundleError, match=says):
        read_npz(zipped({"a.npy": data}), "a.npz", {"a": judge})


def test_a_golden_image_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "stripes", **parts()).path
    image, labels = thirds()
    longer = npy(image) + bytes(64 * 2**20)
    (path / "golden.npz").write_bytes(zipped({"image.npy": longer, "labels.npy": npy(labels)}))
    put_right(path)
    tracemalloc.start()
    with pytest.raises(BundleError, match="more bytes than it says"):
        Bundle.load(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(0, 4), (32769, 1), (4096, 2049)])
def test_a_golden_image_has_a_largest_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = bundle.save(tmp_path / "stripes", **parts()).path
    members = {"image.npy": npy(np.zeros((*size, 3), np.uint8)), "labels.npy": npy(np.zeros(size, np.uint8))}
    (path / "golden.npz").write_bytes(zipped(members))
    put_right(path)
    with pytest.raises(BundleError, match="at most 8388608 pixels"):
        Bundle.load(path)
