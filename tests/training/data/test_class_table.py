"""Values and their classes: as files of classes say it, counted from another number, without what is ignored."""

from pathlib import Path

import numpy as np
import pytest

from training.data.class_table import BINARY, PLAIN, ClassTable, counted_from, pixels_by_value, read_classes
from training.data.errors import DataError
from training.data.label_maps import Colors

CVAT = """# label:color_rgb:parts:actions
background:0,0,0::
road:128,64,128::
traffic light:250,170,30:red,green:
"""
NAMES = ("background", "road", "traffic light")
COLORS = {(0, 0, 0): 0, (128, 64, 128): 1, (250, 170, 30): 2}


def table(tmp_path: Path, text: str, first: int | None = None) -> tuple[tuple[str, ...], ClassTable]:
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    return read_classes(tmp_path / "classes", first)


@pytest.mark.parametrize(
    "text",
    [
        CVAT,
        "\ufeff" + CVAT.replace("\n", "\r\n"),
        "name, r, g, b\nbackground, 0, 0, 0\nroad, 128, 64, 128\ntraffic light, 250, 170, 30\n",
        "0 0 0 background\n128 64 128\troad\n250 170 30 traffic light\n",
        '{"background": [0, 0, 0], "road": "#804080", "traffic light": "faaa1e"}',
        '[{"name": "background", "color": "#000000"}, {"name": "road", "color": [128, 64, 128]},'
        ' {"name": "traffic light", "color": "#FAAA1E"}]',
    ],
    ids=["cvat", "windows", "csv", "rgb", "json", "json list"],
)
def test_tables_of_colors(text: str, tmp_path: Path) -> None:
    names, found = table(tmp_path, text)
    assert names == NAMES
    assert found.colors == Colors(COLORS, palettes=True)  # values are places, so that a renumbered palette does no harm
    assert found.classes(np.array([[0, 1], [2, 255]], np.uint8)).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    "text",
    [
        "7 background\n9 road  # of any kind\n\n-1 traffic light\n",
        "7: background\n9: road\n-1: traffic light\n",
        "7,background\n9,road\n-1,traffic light\n",
        "7\tbackground\n9\troad\n-1\ttraffic light\n",
        '{"7": "background", "9": "road", "-1": "traffic light"}',
        '{"background": 7, "road": 9, "traffic light": -1}',
        '[{"id": 7, "name": "background"}, {"value": 9, "name": "road"}, {"value": -1, "name": "traffic light"}]',
    ],
)
def test_tables_of_values(text: str, tmp_path: Path) -> None:
    names, found = table(tmp_path, text)
    assert names == NAMES
    assert found.colors is None
    assert found.classes(np.array([7, 9, -1, 255])).tolist() == [0, 1, 2, 255]
    with pytest.raises(
        DataError, match=r"the value 8 in 50\.0% of its pixels is no class: classes are -1, 7, 9; --ignore 8"
    ):
        found.classes(np.array([7, 8], np.uint8))


def test_names_alone_count_from_where_they_are_told_to(tmp_path: Path) -> None:
    for text in ("background\nroad\ntraffic light", '["background", "road", "traffic light"]'):
        names, found = table(tmp_path, text)
        assert names == NAMES
        assert found.classes(np.arange(3, dtype=np.uint8)).tolist() == [0, 1, 2]
        assert table(tmp_path, text, 1)[1].classes(np.arange(4, dtype=np.uint8)).tolist() == [255, 0, 1, 2]


def test_values_with_colors_leave_palettes_to_their_indices(tmp_path: Path) -> None:
    _, found = table(tmp_path, '[{"name": "a", "value": 3, "color": [1, 2, 3]}, {"name": "b", "value": 4}]')
    assert found.colors == Colors({(1, 2, 3): 3}, palettes=False)


def test_values_that_share_a_name_are_one_class_and_255_may_be_one(tmp_path: Path) -> None:
    names, found = table(tmp_path, "0 ground\n1 sky\n2 ground\n255 tree\n1000 sky")
    assert names == ("ground", "sky", "tree")
    assert found.classes(np.array([0, 1, 2, 255, 1000])).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize(
    ("text", "first", "reason"),
    [
        ("", None, "write the value of a class"),
        ("# nothing\n", None, "write the value of a class"),
        ("0 a\nb", None, "line 2 is not built as the first"),
        ("0 a\n0 b", None, "b: its value is that of another class"),
        ("a:1,2,3::\nb:1,2,3::", None, "b: its color is that of another class"),
        ("a:1,2,300::", None, "the color 1,2,300: write three numbers from 0 to 255"),
        ("0 a\n1 b", 1, "it gives the values itself: leave --labels-from out"),
        ('[{"name": "a", "value": 1}, "b"]', None, "write the value of every class, or of none"),
        ("\n".join(f"class {n}" for n in range(256)), None, "256 classes; there may be 255"),
        ("{broken", None, "it is not built as one of these: a line `name:R,G,B::`"),
        ('{"a": {"b": 1}}', None, "not built as one of these"),
        ('{"0": 1}', None, "1 is no name"),
        ("[1, 2]", None, "not built as one of these"),
    ],
)
def test_what_is_no_table(text: str, first: int | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"--classes {tmp_path}/classes: .*{reason}"):
        table(tmp_path, text, first)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--classes .*/absent: it cannot be read"):
        read_classes(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match="it cannot be read"):
        read_classes(tmp_path / "binary")


def test_classes_counted_from_another_number() -> None:
    values = np.array([[0, 1, 2, 254, 255]], np.uint8)
    assert PLAIN.classes(values).tolist() == [[0, 1, 2, 254, 255]]
    assert counted_from(1).classes(values).tolist() == [[255, 0, 1, 253, 255]]
    assert counted_from(1).numbered([0, 3, 255]) == ("class 1", "class 2", "class 3")
    assert PLAIN.numbered([255]) == ("class 0",)
    assert BINARY.classes(values[:, [0, 4]]).tolist() == [[0, 1]]


def test_what_is_ignored_is_no_class_and_those_behind_it_move_up() -> None:
    names, found = PLAIN.ignoring({0, -1, 65535}, ())
    assert names == ()
    assert found.classes(np.array([0, 1, 27, -1, 65535])).tolist() == [255, 0, 26, 255, 255]
    assert found.numbered([0, 2]) == ("class 1", "class 2")
    named = ClassTable({10: 0, 11: 1, 12: 2, 13: 1, 255: 255})
    names, found = named.ignoring(named.values_of(["b", "12"], ("a", "b", "c", "d")), ("a", "b", "c", "d"))
    assert names == ("a",)
    assert found.classes(np.array([10, 11, 12, 13], np.uint8)).tolist() == [0, 255, 255, 255]
    assert found.ignored({10: 5, 11: 1, 12: 7, 255: 2}) == {12: 7, 255: 2, 11: 1}
    names, found = PLAIN.ignoring({1}, ("a", "b", "c"))  # a data set's: its values end where its names do
    assert names == ("a", "c")
    assert found.classes(np.array([0, 1, 2], np.uint8)).tolist() == [0, 255, 1]
    with pytest.raises(DataError, match=r"classes are 0, 2;"):
        found.classes(np.array([3], np.uint8))
    with pytest.raises(DataError, match="leaves no class"):
        named.ignoring({10, 11, 12, 13}, ())


def test_what_cannot_be_ignored() -> None:
    with pytest.raises(DataError, match=r"--ignore void: it is no value; names are those of --classes"):
        PLAIN.values_of(["void"], ())
    with pytest.raises(DataError, match=r"--ignore void: it is no value, nor the name of a class: sky, road"):
        PLAIN.values_of(["void"], ("sky", "road"))


def test_pixels_are_counted_by_value() -> None:
    for kind in (np.uint8, np.int64):
        assert pixels_by_value(np.array([[0, 3], [3, 255]], kind)) == {0: 1, 3: 2, 255: 1}
    assert pixels_by_value(np.array([[-1, 70000]])) == {-1: 1, 70000: 1}
