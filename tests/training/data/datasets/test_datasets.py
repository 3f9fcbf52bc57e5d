"""Folders as people have them: nested, mixed, partly broken."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from training.data import datasets
from training.data import images as images_module
from training.data.datasets import camvid
from training.data.errors import DataError, UnreadableImage

CAMVID = Path(__file__).parents[4].parent / "shared" / "data" / "camvid"


def picture(path: Path, size: tuple[int, int] = (20, 30), color: int = 99, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (color, 2, 3)).save(path, **how)  # type: ignore[arg-type]
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in (1, 2, 9, 10):
        picture(tmp_path / f"frame_{i}.png")
    picture(tmp_path / "b" / "c" / "deep.JPG")
    exif = Image.Exif()
    exif[0x112] = 6
    picture(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(picture(tmp_path / "whole.jpg").read_bytes()[:200])
    (tmp_path / "empty.png").touch()
    picture(tmp_path / "dot.png", (1, 300))
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".thumbnails" / "x.png")
    picture(tmp_path / "__MACOSX" / "x.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def opened(folder: Path, **how: str) -> tuple[images_module.Images, str]:
    out = io.StringIO()
    name = how.pop("name", "folder")
    return datasets.open(name, folder, console=Console(file=out, width=200), **how), out.getvalue()  # type: ignore[arg-type]


def test_readable_images_are_kept_in_natural_order(folder: Path) -> None:
    images, _ = opened(folder)
    assert [images.name(i) for i in range(len(images))] == [
        "b/c/deep.JPG", "frame_1.png", "frame_2.png", "frame_9.png", "frame_10.png", "turned.jpg", "whole.jpg",
    ]  # fmt: skip
    assert [image.shape for image in images][-2:] == [(30, 20, 3), (20, 30, 3)]
    assert images[1].dtype == np.uint8
    assert images[1][0, 0].tolist() == [99, 2, 3]


def test_the_others_are_named_with_the_reason(folder: Path) -> None:
    images, said = opened(folder)
    assert [s.path.name for s in images.skipped] == ["broken.jpg", "dot.png", "empty.png"]
    assert "skipped broken.jpg: the JPEG is damaged or truncated" in said
    assert "skipped dot.png: 300×1 pixels; the shorter side must have 16" in said
    assert "skipped empty.png: the image is empty" in said


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds 3 readable images \(1 unreadable\); at least 4"):
        opened(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        opened(tmp_path / "absent")
    with pytest.raises(DataError, match=r"data set 'imagenet': there are camvid, cityscapes, cocostuff, folder"):
        opened(tmp_path, name="imagenet")


def test_the_digest_knows_names_and_sizes(folder: Path) -> None:
    before = opened(folder)[0].digest
    assert opened(folder)[0].digest == before
    (folder / "frame_1.png").rename(folder / "frame_3.png")
    renamed = opened(folder)[0].digest
    picture(folder / "frame_2.png", (40, 40), 7)
    rewritten = opened(folder)[0].digest
    assert len({before, renamed, rewritten}) == 3


def test_a_subset_keeps_its_order(folder: Path) -> None:
    images, _ = opened(folder)
    some = images.subset([4, 0])
    assert [some.name(i) for i in range(2)] == ["frame_10.png", "b/c/deep.JPG"]
    with pytest.raises(DataError, match="no label map"):
        some.labels(0)
    assert not some.labelled


def test_several_folders_are_joined_and_names_stay_below_them(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "photos", tmp_path / "b" / "photos"
    for i in range(2):
        picture(one / f"{i}.png")
        picture(two / "deep" / f"{i}.jfif", format="JPEG")
    (two / "gone.png").symlink_to("nowhere")
    images, said = opened([one, two, two / "deep", one])  # type: ignore[arg-type]
    assert [images.name(i) for i in range(4)] == [
        "photos/0.png",
        "photos/1.png",
        "photos-2/deep/0.jfif",
        "photos-2/deep/1.jfif",
    ]
    assert "skipped photos-2/gone.png: a link to nothing\n" in said
    assert str(tmp_path) not in said
    assert images.title == "photos and photos"
    assert images.digest != opened([two, one])[0].digest  # type: ignore[arg-type]
    with pytest.raises(DataError, match="absent is not a folder"):
        opened([one, tmp_path / "absent"])  # type: ignore[arg-type]


def test_what_a_run_wrote_below_the_data_is_no_data(folder: Path) -> None:
    before, _ = opened(folder)
    for name in ("runs/1/run.json", "served/manifest.json", "served/encoder.onnx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        picture((folder / name).parent / "exemplars" / "0.png")
    images, said = opened(folder)
    assert images.digest == before.digest
    assert f"{folder / 'served'}: the folder of a run or a bundle, whose pictures are no data" in said
    with pytest.raises(DataError, match="holds 0 readable images"):
        opened(folder / "runs")


def test_label_maps_among_the_photos_are_left_out_or_taken(tmp_path: Path) -> None:
    for name in ("imgs", "labels"):
        (tmp_path / name).mkdir()
    for i in range(4):
        photo = np.random.default_rng(i).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "imgs" / f"{i}.png")
        Image.fromarray(np.eye(20, 30, 9, np.uint8)).save(tmp_path / "labels" / f"{i}.png")
    images, said = opened(tmp_path)
    assert [images.name(i) for i in range(len(images))] == [f"imgs/{i}.png" for i in range(4)]
    assert "left out: 4 flat files named as the photos beside them, for instance labels/0.png" in said
    assert "; --set data.label_maps=as_photos (train) or --label-maps as_photos (pretrain, evaluate) makes" in said
    assert len(opened(tmp_path, label_maps="as_photos")[0]) == 8


def test_an_image_that_is_lost_later_is_named_below_its_folder(folder: Path) -> None:
    images, _ = opened(folder)
    (folder / "frame_9.png").unlink()
    (folder / "b" / "c" / "deep.JPG").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UnreadableImage) as gone:
        images.load(3)
    assert str(gone.value) == (
        "frame_9.png: no such file or directory. Checkpoints are kept: with the file as it was the run goes on from the"
        " last one; without it a new run can begin"
    )
    assert gone.value.exit_code == 1
    with pytest.raises(UnreadableImage, match=r"^b/c/deep\.JPG: the JPEG is damaged or truncated"):
        images[0]
    again = pickle.loads(pickle.dumps(gone.value))  # as it comes out of a process
    assert str(again) == str(gone.value)


@pytest.fixture
def small_camvid(tmp_path: Path) -> Path:
    for i, drive in enumerate(("0006R0", "0016E5", "Seq05VD", "0006R0", "0016E5", "Seq05VD", "Seq05VD", "0016E5")):
        picture(tmp_path / "images" / "train" / f"{drive}_f{i}.jpg")
        (tmp_path / "labels" / "train").mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 20), i).save(tmp_path / "labels" / "train" / f"{drive}_f{i}.png")
    return tmp_path


def test_camvid_pairs_labels_by_stem(small_camvid: Path) -> None:
    images, _ = opened(small_camvid, name="camvid")
    assert len(images) == 8
    assert images.labelled
    assert len(images.class_names) == 11
    for i in range(8):
        assert images.labels(i).max() == int(images.paths[i].stem.split("_f")[1])


def test_camvid_splits_by_drive(small_camvid: Path) -> None:
    without = opened(small_camvid, name="camvid", split="train/-0006R0")[0]
    assert {camvid.drive(p) for p in without.paths} == {"0016E5", "Seq05VD"}
    with pytest.raises(DataError, match=r"no split 'dev': there are train, val, test"):
        opened(small_camvid, name="camvid", split="dev")
    with pytest.raises(DataError, match=r"images/val is missing"):
        opened(small_camvid, name="camvid", split="val")


def test_a_label_map_with_three_channels_is_refused(small_camvid: Path) -> None:
    picture(small_camvid / "labels" / "train" / "0006R0_f0.png")
    images, _ = opened(small_camvid, name="camvid")
    with pytest.raises(DataError, match="one byte a pixel"):
        images.labels(0)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="../shared/data/camvid is absent")
def test_the_real_camvid() -> None:
    images, _ = opened(CAMVID, name="camvid", split="val")
    assert (len(images), images[0].shape, images.labels(0).shape) == (101, (360, 480, 3), (360, 480))
    assert images.labelled
