"""Patches come from where the cluster is; private ones show no photo."""

import io

import numpy as np
from PIL import Image

from training.export.exemplars import ExemplarPicker

CODE = np.ones((3, 12, 16), np.float32)


def photo(seed: int, size: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, ...]:
    """Noise with a red square that is cluster 1: image, labels, margin, code."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 60, (*size, 3), dtype=np.uint8)
    labels = np.zeros(size, np.uint8)
    top, left = generator.integers(5, 60, 2)
    labels[top : top + 40, left : left + 40] = 1
    image[labels == 1] = [230, 20, 20]
    return image, labels, np.full(size, 0.5, np.float32), CODE


def pixels(webp: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"))


def test_real_patches_show_the_region_lit() -> None:
    gallery = ExemplarPicker(3, keep=2)
    for i in range(6):
        gallery.show(i, *photo(i))
    found = gallery.encode()
    assert sorted(found) == [0, 1]  # nobody saw cluster 2
    assert [len(patches) for patches in found.values()] == [2, 2]
    shown = pixels(found[1][0])
    assert shown.shape == (128, 128, 3)
    red = (shown[..., 0] > 180) & (shown[..., 1] < 80)
    assert red.mean() > 0.5
    assert not red.all()


def test_patches_of_one_cluster_come_from_different_images() -> None:
    gallery = ExemplarPicker(2, keep=4)
    for i in range(4):
        gallery.show(i, *photo(i))
    assert len(set(gallery.encode()[1])) == 4


def test_a_patch_is_cut_from_the_full_image() -> None:
    image, labels, margin, code = photo(0)
    large = image.repeat(4, 0).repeat(4, 1)
    large[::2, ::2] = 255  # too fine for the labels' grid
    gallery = ExemplarPicker(2, keep=1)
    gallery.show(0, large, labels, margin, code)
    assert pixels(gallery.encode()[1][0]).std() > 60


def test_mean_patches_show_no_single_photo() -> None:
    gallery = ExemplarPicker(2, keep=0)
    for i in range(20):
        gallery.show(i, *photo(i))
    shown = pixels(gallery.encode()[0][0]).astype(float)
    # Twenty patches of noise of deviation 17, each cell a mean of many pixels: next to nothing of any is left.
    assert shown.std(axis=(0, 1))[1:].max() < 3  # red is where the squares are, in all of them
    few = ExemplarPicker(2, keep=0)
    for i in range(7):
        few.show(i, *photo(i))
    assert pixels(few.encode()[0][0]).reshape(-1, 3).std(0).max() < 2  # a plain color: seven are too few to hide in


def test_tiny_and_flat_maps_are_no_trouble() -> None:
    gallery = ExemplarPicker(1, keep=3)
    gallery.show(
        0, np.zeros((16, 400, 3), np.uint8), np.zeros((16, 400), np.uint8), np.zeros((16, 400), np.float32), CODE
    )
    gallery.show(1, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.float32), CODE)
    assert 1 <= len(gallery.encode()[0]) <= 2


def test_patches_of_a_wide_cluster_show_its_width() -> None:
    """Of twelve photos one has another code, and is the least sure: it is among the three patches."""
    gallery = ExemplarPicker(2, keep=3)
    other = CODE * np.array([1, -1, 0], np.float32)[:, None, None]
    for i in range(12):
        image, labels, margin, _ = photo(i)
        odd = i == 7
        image[labels == 1] = [20, 230, 20] if odd else [230, 20, 20]
        gallery.show(i, image, labels, margin * (0.4 if odd else 1), other if odd else CODE)
    shown = [pixels(webp).reshape(-1, 3).astype(int) for webp in gallery.encode()[1]]
    green = [bool(((one[:, 1] > 180) & (one[:, 0] < 90)).mean() > 0.3) for one in shown]
    assert green == [False, True, False]


def test_a_thin_cluster_is_shown_where_there_is_most_of_it() -> None:
    """One cell that is very sure does not make a patch."""
    image, labels = np.zeros((160, 160, 3), np.uint8), np.zeros((160, 160), np.uint8)
    labels[10, 10], labels[60:66] = 1, 1
    image[labels == 1] = 255
    margin = np.full((160, 160), 0.1, np.float32)
    margin[10, 10] = 1.0
    gallery = ExemplarPicker(2, keep=1)
    gallery.show(0, image, labels, margin, CODE)
    assert (pixels(gallery.encode()[1][0]) > 200).mean() > 0.08  # 6 of 51 rows


def test_mean_patches_keep_no_photo_in_memory() -> None:
    gallery = ExemplarPicker(2, keep=0)
    gallery.show(0, *photo(0))
    kept = gallery._patches[0][0]
    assert kept.pixels.shape == (16, 16, 3)
    assert not kept.mask.size
