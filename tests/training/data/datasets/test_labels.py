"""Label maps of one's own: paired by name, read as people save them, refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.datasets import with_labels
from training.data.errors import DataError
from training.data.images import Images
from training.data.label_maps import read_labels


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def photos(root: Path, *names: str) -> Images:
    return Images(root, [save(root / name, np.zeros((20, 30, 3), np.uint8)) for name in names])


def flat(path: Path, value: int) -> Path:
    return save(path, np.full((20, 30), value, np.uint8))


def test_paths_are_compared_before_stems(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", "a/x.jpg", "b/x.jpg", "y.v2.png")
    maps = tmp_path / "maps"
    flat(maps / "b/x.png", 2), flat(maps / "a/x.tif", 1), flat(maps / "elsewhere/y.v2.bmp", 3)
    paired = with_labels(images, maps)
    assert paired.labelled
    assert [int(paired.labels(i).max()) for i in range(3)] == [1, 2, 3]
    assert paired.paths == images.paths
    assert paired.digest == images.digest  # what was learned from does not depend on what it is scored with


def test_a_stem_that_two_share_decides_nothing(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", "a/x.jpg", "b/x.jpg", "c.jpg", "d.jpg", "e.jpg")
    flat(tmp_path / "maps" / "x.png", 1), flat(tmp_path / "maps" / "c.png", 1)
    with pytest.raises(DataError, match=r"4 of 5 images have no label map .* a/x\.jpg, b/x\.jpg, d\.jpg:"):
        with_labels(images, tmp_path / "maps")
    flat(tmp_path / "more" / "p" / "x.png", 1), flat(tmp_path / "more" / "q" / "x.png", 1)
    with pytest.raises(DataError, match="1 of 1 images have no label map"):
        with_labels(images.subset([0]), tmp_path / "more")


def test_two_maps_of_one_name_and_maps_among_the_images_are_refused(tmp_path: Path) -> None:
    images = photos(tmp_path, "in/x.png", "in/y.png")
    with pytest.raises(DataError, match="keep them in two folders"):
        with_labels(images, tmp_path / "in")
    flat(tmp_path / "maps" / "x.png", 1), flat(tmp_path / "maps" / "x.bmp", 1)
    with pytest.raises(DataError, match=r"x\.(png|bmp): another label map has the same name"):
        with_labels(images, tmp_path / "maps")
    with pytest.raises(DataError, match="--labels names the folder"):
        with_labels(images, tmp_path / "absent")


@pytest.mark.parametrize(("suffix", "reason"), [("gif", "renumber the palette"), ("jpg", "changes values along every")])
def test_formats_that_change_values_are_named_and_not_merely_missed(suffix: str, reason: str, tmp_path: Path) -> None:
    images = photos(tmp_path / "in", "x.jpg", "y.jpg")
    flat(tmp_path / "maps" / "x.png", 1), flat(tmp_path / "maps" / f"y.{suffix}", 1)
    with pytest.raises(DataError, match=rf"y\.{suffix}: it is .* {reason}.*; save label maps as PNG"):
        with_labels(images, tmp_path / "maps")
    with pytest.raises(DataError, match="2 of 2 images have no label map"):  # the photos themselves are no such maps
        (tmp_path / "none").mkdir(), with_labels(images, tmp_path / "none")


def test_classes_nobody_named_are_counted_in_the_maps(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", "x.jpg", "y.jpg")
    assert images.class_names == ()
    values = np.full((20, 30), 255, np.uint8)
    flat(tmp_path / "maps" / "x.png", 1)
    save(tmp_path / "maps" / "y.png", values)
    paired = with_labels(images, tmp_path / "maps")
    assert paired.class_names == ("class 0", "class 1")
    values[0, 0] = 4
    save(tmp_path / "maps" / "y.png", values)
    again = with_labels(images, tmp_path / "maps")
    assert again.class_names[-1] == "class 4"
    assert again.subset([0]).class_names == again.class_names


def test_label_maps_are_read_as_people_save_them(tmp_path: Path) -> None:
    values = np.array([[0, 1, 7], [7, 255, 2]], np.uint8)
    palette = Image.fromarray(values).convert("L")
    palette.putpalette([(37 * i) % 256 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "deep.png", values.astype(np.uint16))
    Image.fromarray(values == 7).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), values)
    np.testing.assert_array_equal(read_labels(tmp_path / "deep.png"), values)
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png"), values == 7)
    assert read_labels(tmp_path / "bits.png").dtype == np.uint8


def test_label_maps_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    images = photos(tmp_path / "in", "deep.jpg")
    save(tmp_path / "maps" / "deep.png", np.full((2, 2), 1000, np.uint16))
    with pytest.raises(
        DataError, match=r"deep\.png: the value 1000 in 100\.0% of its pixels .* classes are 0 to 254; --ig"
    ):
        with_labels(images, tmp_path / "maps").labels(0)
    save(tmp_path / "color.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"mode RGB; a label map has one byte a pixel"):
        read_labels(tmp_path / "color.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "color.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken\.png: the label map cannot be read"):
        read_labels(tmp_path / "broken.png")
