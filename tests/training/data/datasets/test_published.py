"""The published data sets, on tiny trees laid out as the real ones."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.io import savemat

from training.data import datasets
from training.data.class_table import read_classes
from training.data.datasets import cityscapes, cocostuff
from training.data.errors import DataError
from training.data.images import Images
from training.data.regions import RegionOptions, open_regions

FACTS = Path(__file__).parents[3] / "golden" / "data" / "cocostuff27.json"
SIZE = (18, 24)


def photo(path: Path, color: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), color, np.uint8)).save(path)


def row(path: Path, *values: int, palette: bool = False) -> None:
    """A label map whose first pixels are these values, and the rest the last of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = np.full(SIZE[0] * SIZE[1], values[-1], np.uint8)
    flat[: len(values)] = values
    opened = Image.fromarray(flat.reshape(SIZE))
    if palette:
        opened.putpalette([(91 * i) % 256 for i in range(768)])
    opened.save(path)


def opened(name: str, folder: Path, split: str = "train") -> tuple[Images, str]:
    said = io.StringIO()
    return datasets.open(name, folder, split=split, console=Console(file=said, width=200)), said.getvalue()


def stems(images: Images) -> list[str]:
    return [path.stem for path in images.paths]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for year in ("train2017", "val2017"):
        for i in range(6):
            photo(tmp_path / "images" / year / f"{i:012}.jpg", i)
            row(tmp_path / "annotations" / year / f"{i:012}.png", i, 0, 90, 91, 104, 181, 255)
    train, val = tmp_path / "curated" / "train2017", tmp_path / "curated" / "val2017"
    train.mkdir(parents=True), val.mkdir()
    (train / "Coco164kFull_Stuff_Coarse_7.txt").write_text("\n".join(f"{i:012}" for i in (5, 3, 2, 0)) + "\n")
    (train / "Coco164kFull_Stuff_Coarse.txt").write_text("".join(f"{i:012}\n" for i in (0, 2, 3, 4, 5)))
    (val / "Coco164kFull_Stuff_Coarse_7.txt").write_text("".join(f"{i:012}\n" for i in (1, 2, 3, 4)))
    return tmp_path


def test_coco_keeps_to_the_published_lists(coco: Path) -> None:
    for split, wanted in {"train": [0, 2, 3, 4, 5], "train_7": [5, 3, 2, 0], "val": [1, 2, 3, 4]}.items():
        images, said = opened("cocostuff", coco, split)
        assert [int(stem) for stem in stems(images)] == wanted
        assert "absent" not in said
        assert images.labelled
    assert len(opened("cocostuff", coco, "train2017")[0]) == 6
    both = opened("cocostuff", coco, "train_7+val")[0]
    assert len(both) == 8
    assert both.name(0) == "images/train2017/000000000005.jpg"


def test_coco_pairs_by_stem_and_maps_values(coco: Path) -> None:
    images, _ = opened("cocostuff", coco, "train_7")
    for i in range(len(images)):
        fine = int(images.paths[i].stem)  # the first pixel of its map
        assert images.labels(i).ravel()[:7].tolist() == [cocostuff.COARSE_OF_FINE[fine], 9, 4, 17, 17, 24, 255]
    assert images.subset([1]).labels(0)[0, 0] == 11
    fifteen, _ = opened("cocostuff:15", coco, "train_7")
    assert fifteen.labels(0).ravel()[:7].tolist() == [255, 255, 255, 5, 5, 12, 255]
    assert fifteen.digest == images.digest


@pytest.mark.parametrize(
    ("variant", "train", "val"),
    [
        ("27", ("Coco164kFull_Stuff_Coarse", 97702), ("Coco164kFull_Stuff_Coarse_7", 2175)),  # STEGO's and CAUSE's code
        ("15", ("Coco164kFull_Stuff_Coarse_7", 49629), ("Coco164kFull_Stuff_Coarse_7", 2175)),
        ("3", ("Coco164kFew_Stuff_6", 35228), ("Coco164kFew_Stuff_6", 1432)),
        ("81", ("Coco164kFull_Stuff_Coarse", 97702), ("Coco164kFull_Stuff_Coarse", 4172)),  # CAUSE
        ("171", ("Coco164kFull_Stuff_Coarse", 97702), ("Coco164kFull_Stuff_Coarse", 4172)),
    ],
)
def test_coco_lists_are_those_of_who_reports_on_the_classes(
    coco: Path, variant: str, train: tuple[str, int], val: tuple[str, int]
) -> None:
    number = {"Coco164kFull_Stuff_Coarse": 5, "Coco164kFull_Stuff_Coarse_7": 4, "Coco164kFew_Stuff_6": 6}
    for year in ("train2017", "val2017"):
        for name, count in number.items():
            (coco / "curated" / year / f"{name}.txt").write_text("".join(f"{i:012}\n" for i in range(count)))
    for split, (name, published) in {"train": train, "val": val}.items():
        images, said = opened(f"cocostuff:{variant}", coco, split)
        assert len(images) == number[name]
        assert f"{name}.txt names {number[name]} images; the published list of that name has {published}" in said
    assert len(opened(f"cocostuff:{variant}", coco, "val_6")[0]) == 6
    assert len(opened(f"cocostuff:{variant}", coco, "train_full")[0]) == 5


def test_coco_says_that_a_list_is_absent(coco: Path) -> None:
    (coco / "curated" / "val2017" / "Coco164kFull_Stuff_Coarse_7.txt").unlink()
    images, said = opened("cocostuff", coco, "val")
    assert len(images) == 6
    assert "Coco164kFull_Stuff_Coarse_7.txt is absent: all 6 images" in said


def test_coco_as_its_own_archives_unpack_and_without_labels(coco: Path) -> None:
    (coco / "images" / "train2017").rename(coco / "train2017")
    (coco / "annotations").rename(coco / "stuffthingmaps")
    assert opened("cocostuff", coco)[0].labelled
    (coco / "stuffthingmaps").rename(coco / "elsewhere")
    images, _ = opened("cocostuff", coco)
    assert not images.labelled
    assert len(images.class_names) == 27


def test_coco_says_what_is_wrong(coco: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"no split 'test': there are train, val, train_full, train_7, train_6, val_full, val_7, val_6, train2017",
    ):
        opened("cocostuff", coco, "test")
    with pytest.raises(DataError, match=r"'cocostuff:5': there are cocostuff:27, cocostuff:3, cocostuff:15"):
        opened("cocostuff:5", coco)
    with pytest.raises(DataError, match=r"'voc:3': write voc"):
        opened("voc:3", coco)
    (coco / "images" / "val2017" / "000000000004.jpg").unlink()
    with pytest.raises(DataError, match=r"names 4 images, and 1 of them are not there, for instance 000000000004"):
        opened("cocostuff", coco, "val")
    with pytest.raises(DataError, match=r"neither in images/train2017 nor in train2017; COCO-Stuff is laid out as"):
        opened("cocostuff", coco / "annotations")


@pytest.mark.skipif(not FACTS.is_file(), reason="cocostuff27.json is not among the golden data")
def test_coco_classes_are_the_published_ones() -> None:
    facts = json.loads(FACTS.read_text())
    assert list(cocostuff.FINE) == facts["fine_names"]
    assert list(cocostuff.COARSE_OF_FINE) == facts["fine_to_coarse"]
    assert list(cocostuff.ABSENT) == facts["fine_unused_in_annotations"]
    plain = [name.removesuffix("-things").removesuffix("-stuff") for name in cocostuff.COARSE]
    assert plain == facts["coarse_names"]
    assert all((i < cocostuff.FIRST_STUFF) == thing for i, thing in enumerate(facts["coarse_is_thing"]))
    names, table = cocostuff.classes("3")
    assert list(names) == facts["coco3"]["names"]
    for value, coarse in enumerate(facts["fine_to_coarse"]):
        assert table[value] == facts["coco3"]["map"].get(str(coarse), 255)


@pytest.mark.parametrize(("variant", "count"), [("27", 27), ("15", 15), ("3", 3), ("171", 171), ("81", 81)])
def test_every_class_list_of_coco_is_complete(variant: str, count: int) -> None:
    names, table = cocostuff.classes(variant)
    assert len(names) == len(set(names)) == count
    assert sorted(set(table.tolist())) == [*range(count), 255]
    assert (table[182:] == 255).all()


def test_coco_81_and_171_by_name() -> None:
    names, table = cocostuff.classes("81")
    assert [names[table[cocostuff.FINE.index(n)]] for n in ("person", "toothbrush", "wood", "banner")] == [
        "person", "toothbrush", "background", "background",
    ]  # fmt: skip
    assert (table[0], table[89], table[11], table[90], table[91]) == (1, 80, 255, 255, 0)
    names, table = cocostuff.classes("171")
    for value, name in enumerate(cocostuff.FINE):
        assert table[value] == 255 if value in cocostuff.ABSENT else names[table[value]] == name


@pytest.fixture
def city(tmp_path: Path) -> Path:
    for split, towns in {
        "train": ("aachen", "bochum"),
        "val": ("lindau",),
        "train_extra": ("bayreuth", "erlangen"),
    }.items():
        for town in towns:
            for i in range(5):
                frame = f"{town}_{i:06}_000019"
                photo(tmp_path / "leftImg8bit" / split / town / f"{frame}_leftImg8bit.png", i)
                if split != "train_extra":
                    fine = tmp_path / "gtFine" / split / town
                    row(fine / f"{frame}_gtFine_labelIds.png", 7 + i, 0, 6, 7, 33, 34, 255)
                    row(fine / f"{frame}_gtFine_instanceIds.png", 99)
                    row(fine / f"{frame}_gtFine_color.png", 98)
    return tmp_path


def test_cityscapes_pairs_frames_of_every_town(city: Path) -> None:
    images, _ = opened("cityscapes", city)
    assert len(images) == 10
    assert images.labelled
    assert images.name(0) == "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    for i in range(10):
        first = int(images.paths[i].stem.split("_")[1])
        assert images.labels(i).ravel()[:7].tolist() == [first, 255, 255, 0, 26, 255, 255]
    assert (len(images.class_names), images.class_names[19], images.class_names[26]) == (27, "car", "bicycle")
    assert cityscapes.CLASS_NAMES[0] == "road"


def test_cityscapes_takes_several_splits(city: Path) -> None:
    images, _ = opened("cityscapes", city, "train_extra+val")
    assert len(images) == 15
    assert not images.labelled
    with pytest.raises(DataError, match="has no label map"):
        images.labels(0)
    assert images.subset(range(10, 15)).labelled


def test_cityscapes_says_what_is_wrong(city: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'dev': there are train, val, test, train_extra"):
        opened("cityscapes", city, "dev")
    with pytest.raises(DataError, match=r"leftImg8bit/test; Cityscapes is laid out as .*--data names the folder that"):
        opened("cityscapes", city, "train+test")
    with pytest.raises(DataError, match=r"no \*_leftImg8bit\.png below"):
        opened("cityscapes", city / "leftImg8bit")


def test_cityscapes_in_the_19_classes_of_its_benchmark(city: Path) -> None:
    images, _ = opened("cityscapes:19", city)
    assert len(images.class_names) == 19
    evaluated = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    train_ids = dict(zip(evaluated, range(19), strict=True))
    assert [images.table.class_of.get(one, images.table.others) for one in range(35)] == [
        train_ids.get(one, 255) for one in range(35)
    ]
    names = ("road", "building", "pole", "vegetation", "sky", "person", "car", "train", "bicycle")
    assert [images.class_names.index(name) for name in names] == [0, 2, 5, 8, 10, 11, 13, 16, 18]


def test_cityscapes_takes_coarse_maps_where_there_is_no_fine_one(city: Path) -> None:
    for town in ("bayreuth", "erlangen"):
        for i in range(5):
            row(city / "gtCoarse" / "train_extra" / town / f"{town}_{i:06}_000019_gtCoarse_labelIds.png", 26, 0)
    row(city / "gtCoarse" / "train" / "aachen" / "aachen_000000_000019_gtCoarse_labelIds.png", 33)
    images, said = opened("cityscapes", city, "train_extra")
    assert images.labelled
    assert images.labels(0).ravel()[:2].tolist() == [19, 255]
    assert "of 10 frames of train_extra the label maps are coarse ones" in said
    images, said = opened("cityscapes", city)
    assert images.labels(0)[0, 0] == 0
    assert "coarse" not in said


@pytest.fixture
def potsdam(tmp_path: Path) -> Path:
    (tmp_path / "imgs").mkdir(), (tmp_path / "gt").mkdir()
    for i in range(9):
        samples = np.zeros((*SIZE, 4), np.uint8)
        samples[:] = (i, 10 + i, 20 + i, 250)
        savemat(tmp_path / "imgs" / f"{i}.mat", {"img": samples})
        values = np.full(SIZE, 255, np.uint8)
        values[0, :6], values[1, 0] = range(6), i % 6
        savemat(tmp_path / "gt" / f"{i}.mat", {"gt": values}, do_compression=bool(i % 2))
    (tmp_path / "labelled_train.txt").write_text("8\n1\n4\n0\n")
    (tmp_path / "labelled_test.txt").write_text("2\n3\n5\n6\n")
    (tmp_path / "unlabelled_train.txt").write_text("7\n")
    return tmp_path


def test_potsdam_drops_the_infrared_and_merges_six_classes(potsdam: Path) -> None:
    images, _ = opened("potsdam", potsdam)
    assert stems(images) == ["8", "1", "4", "0"]
    assert images[0].shape == (*SIZE, 3)
    assert [images[i][0, 0].tolist() for i in range(4)] == [[i, 10 + i, 20 + i] for i in (8, 1, 4, 0)]
    assert images.labels(0)[0, :7].tolist() == [0, 1, 2, 2, 0, 1, 255]
    assert [int(images.labels(i)[1, 0]) for i in range(4)] == [2, 1, 0, 0]
    assert len(images.class_names) == 3


def test_regions_are_cut_of_potsdam(potsdam: Path, tmp_path: Path) -> None:
    images, _ = opened("potsdam", potsdam)
    options, quiet = RegionOptions(size=SIZE, scales=(100.0,)), Console(quiet=True)
    cache = open_regions(images.paths, options, tmp_path / "cache", quiet, workers=1, read=images.read)
    assert pickle.loads(pickle.dumps(images.read)) == images.read  # many images are cut in processes
    assert [pixels[0, 0].tolist() for pixels in cache.images] == [[i, 10 + i, 20 + i] for i in (0, 1, 4, 8)]


def test_potsdam_joins_its_lists(potsdam: Path) -> None:
    assert stems(opened("potsdam", potsdam, "unlabelled+train+val")[0]) == list("781402356")
    with pytest.raises(DataError, match="1 readable image "):
        opened("potsdam", potsdam, "unlabelled")


def test_potsdam_has_all_and_the_unlabelled_under_their_names(potsdam: Path) -> None:
    assert stems(opened("potsdam", potsdam, "all")[0]) == list("814023567")
    assert stems(opened("potsdam", potsdam, "unlabelled_train+val")[0]) == list("72356")
    (potsdam / "all.txt").write_text("3\n1\n2\n0\n")
    assert stems(opened("potsdam", potsdam, "all")[0]) == list("3120")


def test_potsdam_as_stego_cut_it_has_no_lists(potsdam: Path, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "potsdamraw" / "processed"
    raw.mkdir(parents=True)
    for part in ("imgs", "gt"):
        (potsdam / part).rename(raw / part)
    for folder in (raw, raw.parent, tmp_path / "data"):
        images, _ = opened("potsdamraw", folder)
        assert stems(images) == list("012345678")
        assert images.labels(0)[0, :7].tolist() == [0, 1, 2, 2, 0, 1, 255]
    with pytest.raises(DataError, match="no split 'dev': there are train, val, all, each all of them"):
        opened("potsdamraw", raw, "dev")
    with pytest.raises(DataError, match=r"holds no imgs; potsdamraw is laid out as imgs/\*\.mat"):
        opened("potsdamraw", raw / "gt")


def test_potsdam_as_png_and_tiff(potsdam: Path) -> None:
    before, _ = opened("potsdam", potsdam)
    wanted, maps = list(before), [before.labels(i) for i in range(4)]
    for i in (8, 1, 4):  # 0 stays as it was
        samples = np.zeros((*SIZE, 4), np.uint8)
        samples[:] = (i, 10 + i, 20 + i, 250)
        Image.fromarray(samples[..., : 3 if i == 4 else 4]).save(potsdam / "imgs" / f"{i}.{'tif' if i == 1 else 'png'}")
        row(potsdam / "gt" / f"{i}.png", *range(6), 255)
        (potsdam / "imgs" / f"{i}.mat").unlink(), (potsdam / "gt" / f"{i}.mat").unlink()
    after, _ = opened("potsdam", potsdam)
    for i in range(4):
        np.testing.assert_array_equal(after[i], wanted[i])
        np.testing.assert_array_equal(after.labels(i)[0], maps[i][0])


def test_potsdam_names_a_damaged_patch(potsdam: Path) -> None:
    for bad in ("1", "2"):
        whole = (potsdam / "imgs" / f"{bad}.mat").read_bytes()
        (potsdam / "imgs" / f"{bad}.mat").write_bytes(whole[: 300 if bad == "1" else 5])
    savemat(potsdam / "imgs" / "3.mat", {"image": np.zeros((20, 20, 3), np.uint8)})
    savemat(potsdam / "imgs" / "5.mat", {"img": np.zeros((20, 20, 4))})
    images, said = opened("potsdam", potsdam, "train+val")
    assert stems(images) == ["8", "4", "0", "6"]
    assert "skipped imgs/1.mat: damaged, or no .mat file up to version 7" in said
    assert "skipped imgs/3.mat: no variable 'img' in it" in said
    assert "skipped imgs/5.mat: float64 of shape [20, 20, 4]; a patch is uint8 [H, W, 4] or [H, W, 3]" in said


def test_potsdam_says_what_is_wrong(potsdam: Path) -> None:
    savemat(potsdam / "gt" / "8.mat", {"gt": np.full(SIZE, 300)})
    with pytest.raises(DataError, match=r"8\.mat: shape \[18, 24\]; a label map is \[H, W\] with values 0 to 5"):
        opened("potsdam", potsdam)[0].labels(0)
    with pytest.raises(DataError, match=r"no split 'test': there are train, val, unlabelled_train, unlabelled, all"):
        opened("potsdam", potsdam, "test")
    (potsdam / "labelled_test.txt").unlink()
    with pytest.raises(DataError, match=r"labelled_test\.txt is missing; Potsdam is laid out as imgs/\*\.mat, gt/"):
        opened("potsdam", potsdam, "val")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for i in range(9):
        photo(root / "JPEGImages" / f"2007_{i:06}.jpg", i)
        row(root / "SegmentationClass" / f"2007_{i:06}.png", i, 20, 255, 0, palette=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"2007_{i:06}\n" for i in (7, 1, 3, 5)))
    (lists / "val.txt").write_text("".join(f"2007_{i:06}\n" for i in (0, 2, 4, 8)))
    (root / "SegmentationClass" / "2007_000008.png").unlink()
    return tmp_path


def test_voc_reads_palette_maps_of_its_lists(voc: Path) -> None:
    for folder in (voc, voc / "VOCdevkit", voc / "VOCdevkit" / "VOC2012"):
        images, _ = opened("voc", folder)
        assert [int(stem[-1]) for stem in stems(images)] == [7, 1, 3, 5]
        assert [images.labels(i).ravel()[:4].tolist() for i in (0, 3)] == [[7, 20, 255, 0], [5, 20, 255, 0]]
    assert (len(images.class_names), images.class_names[15]) == (21, "person")
    assert not opened("voc", voc, "val")[0].labelled


def test_voc_with_the_maps_of_sbd(voc: Path) -> None:
    root = voc / "VOCdevkit" / "VOC2012"
    for i in range(4, 9):
        row(root / "SegmentationClassAug" / f"2007_{i:06}.png", 10 + i)
    pairs = (f"/JPEGImages/2007_{i:06}.jpg /SegmentationClassAug/2007_{i:06}.png" for i in (1, 5, 6, 8))
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join(pairs))
    images, _ = opened("voc", voc, "trainaug")
    assert [images.labels(i)[0, 0] for i in range(4)] == [1, 15, 16, 18]
    images, _ = opened("voc", voc, "val")
    assert [images.labels(i)[0, 0] for i in range(4)] == [0, 2, 4, 18]


def test_what_cvat_exports_in_the_layout_of_voc(voc: Path) -> None:
    root = voc / "VOCdevkit" / "VOC2012"
    (root / "labelmap.txt").write_text("background:0,0,0::\ntree:9,9,9::\nvoid:224,224,192::\n")
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[:, 3:], colors[0] = (9, 9, 9), (224, 224, 192)
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray(colors).save(path)
    names, table = read_classes(root / "labelmap.txt")
    images = opened("voc", voc)[0].classified(*table.ignoring({2}, names))
    assert images.class_names == ("background", "tree")
    assert images.labels(0)[:2, 2:4].tolist() == [[255, 255], [0, 1]]


def test_voc_says_what_is_wrong(voc: Path) -> None:
    with pytest.raises(DataError, match=r"test\.txt is missing: .*; there are train, val"):
        opened("voc", voc, "test")
    with pytest.raises(DataError, match=r"holds no JPEGImages; Pascal VOC 2012 is laid out as JPEGImages/\*\.jpg"):
        opened("voc", voc / "VOCdevkit" / "VOC2012" / "JPEGImages")
