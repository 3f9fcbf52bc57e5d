"""Label maps that lie among photos: found by name and by flatness, in the layouts people have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.io.walker import survey
from training.data.images import read_image
from training.data.label_map_files import label_maps_among

RNG = np.random.default_rng(0)


def photo(path: Path, *, gray: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (24, 32) if gray else (24, 32, 3), dtype=np.uint8)).save(path)


def flat(path: Path, *, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((24, 32), np.uint8)
    values[8:, 5:] = 1
    values[:6, 9:20] = 7
    made = Image.fromarray(values)
    if mode == "P":
        made.putpalette([(91 * i) % 256 for i in range(768)])
    elif mode == "RGB":
        made = Image.fromarray(np.stack([values * 30, values * 9, values], axis=2))
    made.save(path)


def found(folder: Path) -> list[str]:
    files = survey([folder]).files
    return [files[i].relative_to(folder).as_posix() for i in label_maps_among(files, read_image)]


@pytest.mark.parametrize(
    ("image", "label", "mode"),
    [
        ("imgs/{}.jpg", "labels/{}.png", "L"),
        ("images/val/{}.png", "annotations/val/{}.png", "P"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "RGB"),
        ("{}.jpg", "{}.png", "L"),
        ("{}.png", "{}_mask.png", "L"),
        ("{}.png", "LabeledApproved/{}_L.png", "RGB"),
        ("leftImg8bit/a/{}_leftImg8bit.png", "gtFine/a/{}_gtFine_labelIds.png", "L"),
        ("images/{}_training.tif", "1st_manual/{}_manual1.gif", "L"),
    ],
)
def test_layouts_that_people_have(tmp_path: Path, image: str, label: str, mode: str) -> None:
    for i in range(3):
        photo(tmp_path / image.format(f"street_{i:06}"))
        flat(tmp_path / label.format(f"street_{i:06}"), mode=mode)
    photo(tmp_path / image.format("one_more"))
    assert found(tmp_path) == [label.format(f"street_{i:06}") for i in range(3)]


def test_a_photo_is_no_label_map_for_its_name(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "color" / f"{i}.png")
        photo(tmp_path / "gray" / f"{i}.png", gray=True)  # one channel, and not flat
        flat(tmp_path / "drawn" / f"d{i}.png")  # flat, and of nobody's name
    for folder in "ab":
        flat(tmp_path / folder / "x.png")  # flat both
    assert found(tmp_path) == []
    flat(tmp_path / "gray" / "0.png")  # one of three
    assert found(tmp_path) == []


def test_of_many_folders_a_few_are_opened_before_all_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.label_map_files._MOST_GROUPS", 2)
    for i in range(6):
        photo(tmp_path / "imgs" / f"{i}" / "x.jpg")
        flat(tmp_path / "maps" / f"{i}" / "x.png")
    assert len(found(tmp_path)) == 6
