"""`tessera evaluate`: the numbers of served label maps, rows side by side, refusals that say what to change."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from scipy.optimize import linear_sum_assignment
from starlette.testclient import TestClient
from typer.testing import CliRunner

from models.crf import reference
from tests.service.server import server_of
from tests.tiny import bands
from training import evaluate
from training.evaluation.label_maps import Edges

CLASS_OF_COLOR = np.array([0, 1, 1, 2, 3], np.uint8)  # green and blue are one class: one cluster is left over


def draw(folder: Path, count: int = 5) -> Path:
    """Photos of colored bands, noisy and of several sizes; label maps that do not follow them everywhere."""
    for name in ("images/val", "labels/val", "images/train", "labels/train"):
        (folder / name).mkdir(parents=True)
    for i in range(2 * count):
        split, rng = ("val", "train")[i % 2], np.random.default_rng(i)
        order = tuple(rng.permutation(5).tolist())
        height, width = 64 + 9 * i, 120 + 16 * i
        photo = bands(height, width, order).astype(np.int64) + rng.normal(0, 45, (height, width, 3)).round()
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / "images" / split / f"{i} <i>.png")
        labels = np.broadcast_to(CLASS_OF_COLOR[list(order)][np.arange(width) * 5 // width], (height, width)).copy()
        labels[: height // 4] = rng.integers(0, 4)
        labels[height // 2 : height // 2 + 3] = 255
        if i == 2:
            labels = labels[::2, ::2]  # a label map of another size than its photo
        Image.fromarray(labels).save(folder / "labels" / split / f"{i} <i>.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("eval") / "drawn")


def ran(bundle: Path, out: Path, **options: object) -> dict:
    evaluate.command(bundle, out=out, device="cpu", workers=2, **options)  # type: ignore[arg-type]
    return json.loads((out / "evaluation.json").read_text())


def row(facts: dict, name: str) -> dict:
    return next(one for one in facts["rows"] if one["name"] == name)


def served_scores(client: TestClient, data: Path, query: str) -> tuple[float, float]:
    """mIoU and accuracy by another way: label maps over HTTP, counted pixel by pixel class by class, scipy."""
    table = np.zeros((5, 4), np.int64)
    for photo in sorted((data / "images/val").iterdir()):
        answer = client.post(f"/segment?format=png{query}", content=photo.read_bytes())
        found = Image.open(io.BytesIO(answer.content))
        truth = np.asarray(Image.open(data / "labels/val" / photo.name))
        found = np.asarray(found.resize(truth.shape[::-1], Image.Resampling.NEAREST))
        for cluster in range(5):
            for label in range(4):
                table[cluster, label] += np.sum((found == cluster) & (truth == label))
    clusters, classes = linear_sum_assignment(-table)
    ious = []
    for cluster, label in zip(clusters, classes, strict=True):
        hit = table[cluster, label]
        ious.append(hit / (table[cluster].sum() + table[:, label].sum() - hit))
    return float(np.mean(ious)), float(table[clusters, classes].sum() / table.sum())


def test_scores_are_those_of_the_served_label_maps(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    facts = ran(
        tiny_bundle, tmp_path / "out", data=data / "images/val", labels=data / "labels/val",
        crf=True, refine=["fast"], crf_size=["input", "source"],
    )  # fmt: skip
    queries = {
        "plain": "", "crf": "&crf=true", "crf at source": "&crf=true&crf_size=source",
        "fast": "&crf=fast", "fast at source": "&crf=fast&crf_size=source",
    }  # fmt: skip
    assert [one["name"] for one in facts["rows"]] == list(queries)
    assert [one["served"] for one in facts["rows"]] == [True, False, False, False, False]
    assert [one["crf"] for one in facts["rows"]] == [False, True, False, False, False]
    how = [(one["refine"], one["crf_size"]) for one in facts["rows"]]
    assert how == [(None, None), *((word, size) for word in ("dense", "fast") for size in ("input", "source"))]
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    with server_of(tiny_bundle, tmp_path / "state")() as client:
        for name, query in queries.items():
            miou, accuracy = served_scores(client, data, query)
            assert row(facts, name)["miou"] == pytest.approx(miou, abs=1e-12)
            assert row(facts, name)["accuracy"] == pytest.approx(accuracy, abs=1e-12)
            assert f"<th>{name}</th>" in page
    plain = row(facts, "plain")
    assert 0.3 < plain["miou"] < 0.9
    assert plain["class_of_cluster"].count(None) == 1  # five clusters, four classes: its pixels are errors
    assert np.sum(plain["confusion"]) == facts["pixels"]
    assert facts["images"] == 5
    assert facts["failed"] == []


def numbered(data: Path, out: Path, values: dict[int, int], kind: type = np.uint8) -> Path:
    """The drawn label maps with other values, in a new folder."""
    out.mkdir()
    table = np.zeros(256, np.int64)
    table[list(values)] = list(values.values())
    for path in (data / "labels/val").iterdir():
        name = path.name if kind is np.uint8 else path.with_suffix(".tif").name
        Image.fromarray(table[np.asarray(Image.open(path))].astype(kind)).save(out / name)
    return out


STRAIGHT = {0: 0, 1: 1, 2: 2, 3: 3, 255: 255}


@pytest.mark.parametrize(
    ("values", "options", "note"),
    [
        ({0: 1, 1: 2, 2: 3, 3: 4, 255: 255}, {}, "note: 1 of 5 classes neither occur nor are predicted"),
        ({0: 1, 1: 2, 2: 3, 3: 4, 255: 0}, {"labels_from": 1}, "by value 0: "),  # STEGO's cropped label maps
        ({0: 1, 1: 2, 2: 3, 3: 4, 255: 0}, {"ignore": ["0"]}, "by value 0: "),
        ({0: 1, 1: 20, 2: 3, 3: 4, 255: 8}, {"ignore": ["0,2", "8"]}, "by value 8: "),
        ({**STRAIGHT, 255: 65535}, {"ignore": ["65535"], "kind": np.uint16}, "by value 65535: "),
        ({**STRAIGHT, 255: -1}, {"ignore": ["-1"], "kind": np.int32}, "by value -1: "),
        ({0: 7, 1: 300, 2: 11, 3: 0, 255: 9}, {"classes": "7 a\n300 b\n11 c\n0 d\n9 none", "ignore": ["none"],
                                                "kind": np.uint16}, "by value 9: "),
        (STRAIGHT, {"classes": "a:1,2,3::\nb:1,2,4::\nc:1,2,5::\nd:1,2,6::"}, "by value 255: "),
    ],
)  # fmt: skip
def test_labels_numbered_in_other_ways_score_the_same(
    values: dict, options: dict, note: str, tiny_bundle: Path, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = dict(options)
    maps = numbered(data, tmp_path / "maps", values, options.pop("kind", np.uint8))
    if "classes" in options:
        (tmp_path / "classes").write_text(options["classes"])
        options["classes"] = tmp_path / "classes"
    wanted = ran(tiny_bundle, tmp_path / "a", data=data / "images/val", labels=data / "labels/val", limit=2)
    capsys.readouterr()
    facts = ran(tiny_bundle, tmp_path / "b", data=data / "images/val", labels=maps, limit=2, **options)
    for figure in ("miou", "accuracy", "mean_precision"):
        assert row(facts, "plain")[figure] == pytest.approx(row(wanted, "plain")[figure], abs=1e-12)
    assert facts["pixels"] == wanted["pixels"]
    assert note in capsys.readouterr().out
    if "classes" in options:
        assert facts["classes"] == ["a", "b", "c", "d"]


def test_the_help_says_how_a_file_of_classes_is_built() -> None:
    app = typer.Typer()
    app.command()(evaluate.command)
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"}).output
    for form in ("name:R,G,B::", "value name", '["name"]', '{"name": value or [R, G, B] or "#RRGGBB"}'):
        assert form in told


def test_what_is_ignored_is_said(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    maps = numbered(data, tmp_path / "maps", {0: 0, 1: 1, 2: 2, 3: 2, 255: 255})
    counts = np.zeros(256, np.int64)
    for path in maps.iterdir():
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
    facts = ran(tiny_bundle, tmp_path / "out", data=data / "images/val", labels=maps, ignore=["2"])
    two, none, both = (f"{100 * n / counts.sum():.1f} %" for n in (counts[2], counts[255], counts[2] + counts[255]))
    assert f"ignored are {both} of the label maps' pixels, by value 2: {two}, 255: {none}" in facts["notes"]
    assert facts["classes"] == ["class 0", "class 1"]
    assert facts["pixels"] == counts[:2].sum()
    assert f"by value 2: {two}" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")


def test_masks_of_0_and_255_are_two_classes(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    where = {"data": data / "images/val", "limit": 2}
    wanted = ran(tiny_bundle, tmp_path / "a", labels=numbered(data, tmp_path / "01", {0: 0, 1: 1, 2: 1, 3: 1}), **where)
    masks = numbered(data, tmp_path / "masks", {0: 0, 1: 255, 2: 255, 3: 255})
    facts = ran(tiny_bundle, tmp_path / "b", labels=masks, **where)
    assert facts["classes"] == ["class 0", "class 1"]
    assert row(facts, "plain")["iou"] == row(wanted, "plain")["iou"]
    assert [note for note in facts["notes"] if "0 and 255 alone, read as the classes 0 and 1; --ignore 255" in note]
    (tmp_path / "names").write_text("ground\nhouse\n")
    facts = ran(tiny_bundle, tmp_path / "c", labels=masks, classes=tmp_path / "names", **where)
    assert list(row(facts, "plain")["iou"]) == ["ground", "house"]
    facts = ran(tiny_bundle, tmp_path / "d", labels=masks, ignore=["255"], **where)
    assert facts["classes"] == ["class 0"]
    assert not [note for note in facts["notes"] if "0 and 255 alone" in note]


def test_label_maps_in_colors(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    colors = {0: (0, 0, 0), 1: (128, 64, 128), 2: (250, 170, 30), 3: (0, 0, 1), 255: (224, 224, 192)}
    table = np.zeros((256, 3), np.uint8)
    table[list(colors)] = list(colors.values())
    (tmp_path / "maps").mkdir()
    for path in (data / "labels/val").iterdir():
        Image.fromarray(table[np.asarray(Image.open(path))]).save(tmp_path / "maps" / path.name)
    lines = [f"class {v}:{r},{g},{b}::" for v, (r, g, b) in colors.items()]
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    where = {"data": data / "images/val", "limit": 2}
    wanted = ran(tiny_bundle, tmp_path / "a", labels=data / "labels/val", **where)
    told = {"classes": tmp_path / "labelmap.txt", "ignore": ["class 255"]}
    facts = ran(tiny_bundle, tmp_path / "b", labels=tmp_path / "maps", **told, **where)
    assert row(facts, "plain")["iou"] == row(wanted, "plain")["iou"]
    assert facts["pixels"] == wanted["pixels"]
    code, said = failing(tiny_bundle, tmp_path / "c", labels=tmp_path / "maps", **where)
    assert code == 1
    assert f"where its colors are classes: --classes {tmp_path}/labelmap.txt" in said


def test_of_a_data_sets_label_maps_values_and_names_are_ignored(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    facts = ran(tiny_bundle, tmp_path, data=data, dataset="camvid", split="val", limit=2, ignore=["sky", "3"])
    assert len(facts["classes"]) == 9
    assert "sky" not in facts["classes"]
    assert list(facts["classes"][:2]) == ["building", "pole"]
    assert facts["classes"][2] == "pavement"
    assert any("by value" in note and " 255: " in note and " 3: " in note for note in facts["notes"])


def test_a_probe_learns_the_classes_that_are_evaluated(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    facts = ran(
        tiny_bundle, tmp_path, data=data / "images/val", labels=data / "labels/val", ignore=["1"], limit=2,
        linear_probe=True, probe_data=data / "images/train", probe_labels=data / "labels/train", probe_steps=2,
    )  # fmt: skip
    assert facts["classes"] == ["class 0", "class 2", "class 3"]
    assert row(facts, "linear probe, plain")["class_of_cluster"] == facts["classes"]


def test_everything_at_once(tiny_bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = ran(
        tiny_bundle, tmp_path, data=data / "images/val", labels=data / "labels/val", flip=True, protocol="crop",
        linear_probe=True, probe_data=data / "images/train", probe_labels=data / "labels/train", probe_steps=3,
        curves=True, examples=2, levels=True,
    )  # fmt: skip
    names = [one["name"] for one in facts["rows"]]
    assert names == ["plain", "flip", "linear probe, plain", "linear probe, flip"]
    assert row(facts, "linear probe, plain")["class_of_cluster"] == facts["classes"]
    assert row(facts, "plain")["miou"] == pytest.approx(row(facts, "flip")["miou"], abs=0.01)  # colors know no sides
    assert facts["protocol"] == "crop"
    assert facts["pixels"] <= 5 * 64 * 64  # central squares of the bundle's 64 pixels
    assert facts["linear_probe"]["images"] == 5
    assert set(facts["correspondence"]) == {"one image", "nearest neighbor", "random other image"}
    assert facts["correspondence"]["one image"]["code"]["average_precision"] > 0.4
    assert any("does not name its backbone's features" in note for note in facts["notes"])
    told = capsys.readouterr().out
    assert "for measuring only" in told
    assert "average precision, nearest neighbor" in told
    assert "levels of the tree by centroids" in told
    assert facts["levels"]["rows"][0]["one_to_one"] == row(facts, "plain")["accuracy"]
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 8
    assert "Fewer clusters" in page
    assert "<script" not in page
    assert "<i>.png" not in page  # names are escaped
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_nothing_of_a_photo_is_in_the_page_by_default(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    ran(tiny_bundle, tmp_path, data=data / "images/val", labels=data / "labels/val", limit=2)
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "matrix" in page


def test_a_runs_folder_stands_for_its_bundle(make_bundle, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "x").mkdir(parents=True)
    (make_bundle()).rename(run / "bundle")
    (run / "run.json").write_text("{}")
    evaluate.command(run, data=data / "images/val", labels=data / "labels/val", limit=2, device="cpu")
    assert json.loads((run / "evaluation" / "evaluation.json").read_text())["images"] == 2


def failing(bundle: Path, out: Path, **options: object) -> tuple[int, str]:
    arguments = [str(bundle), "--out", str(out), "--device", "cpu"]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    app = typer.Typer()
    app.command()(evaluate.command)
    answer = CliRunner().invoke(app, arguments)
    return answer.exit_code, " ".join(answer.output.split())


def test_one_bad_image_is_named_and_skipped(tiny_bundle: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "d", 3)
    broken, beyond, nonsense = sorted((data / "images/val").iterdir())
    broken.write_bytes(b"\xff\xd8\xff")
    Image.fromarray(np.full((64, 120), 0, np.uint8)).save(data / "labels/val" / broken.name)
    (data / "labels/val" / nonsense.name).write_bytes(b"no png")
    Image.fromarray(np.full((64, 120), 3, np.uint8)).save(data / "labels/val" / beyond.name)
    code, told = failing(tiny_bundle, tmp_path / "out", data=data / "images/val", labels=data / "labels/val")
    assert code == 1
    assert f"failed {nonsense.name}: " in told
    assert "the label map cannot be read" in told
    assert f"failed {broken.name}: " in told
    tree = tmp_path / "camvid"
    for part in ("images", "labels"):
        (tree / part).mkdir(parents=True)
        (data / part / "val").rename(tree / part / "val")
    code, told = failing(tiny_bundle, tmp_path / "out", data=tree, dataset="camvid")
    assert code == 1
    assert f"failed images/val/{broken.name}: " in told
    assert f"failed images/val/{nonsense.name}: " in told
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["images"] == 1
    Image.fromarray(np.full((64, 120), 40, np.uint8)).save(tree / "labels/val" / beyond.name)
    code, told = failing(tiny_bundle, tmp_path / "out", data=tree, dataset="camvid")
    assert code == 1
    assert "none of 3 images could be scored" in told
    (tree / "labels/val" / beyond.name).unlink()
    code, told = failing(tiny_bundle, tmp_path / "out2", data=tree, dataset="camvid")
    assert code == 1
    assert not (tmp_path / "out2").exists()


def test_label_maps_may_lie_among_the_photos_and_unreadable_images_need_none(tiny_bundle: Path, tmp_path: Path) -> None:
    data, mixed = draw(tmp_path / "d", 3), tmp_path / "mixed"
    mixed.mkdir()
    for path in (data / "images/val").iterdir():
        Image.open(path).save(mixed / f"{path.stem}.bmp")
        Image.open(data / "labels/val" / path.name).save(mixed / path.name)
    (mixed / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    apart = ran(tiny_bundle, tmp_path / "1", data=[data / "images/val"], labels=data / "labels/val")
    together = ran(tiny_bundle, tmp_path / "2", data=[mixed], labels=mixed)
    (tmp_path / "all").mkdir()
    for part in ("images", "labels"):
        (tmp_path / "all" / part).symlink_to(data / part / "val")
    below = ran(tiny_bundle, tmp_path / "3", data=[tmp_path / "all"], labels=tmp_path / "all" / "labels")
    assert together["rows"][0]["confusion"] == apart["rows"][0]["confusion"] == below["rows"][0]["confusion"]
    assert (together["failed"], together["images"]) == ([], 3)
    assert any(note.startswith("skipped broken.jpg: the JPEG is damaged") for note in together["notes"])
    (mixed / "broken.jpg").write_bytes((data / "images/val" / path.name).read_bytes())
    code, told = failing(tiny_bundle, tmp_path / "4", data=mixed, labels=mixed)
    assert code == 2
    assert "1 of 4 images have no label map" in told


def test_label_maps_of_nothing_or_of_another_photo_are_no_score(tiny_bundle: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "d", 2)
    first, second = sorted((data / "labels/val").iterdir())
    options = {"data": data / "images/val", "labels": data / "labels/val"}
    for path in (first, second):
        Image.fromarray(np.full((64, 120), 255, np.uint8)).save(path)
    code, told = failing(tiny_bundle, tmp_path / "out", **options)
    assert code == 1
    assert "no pixel of 2 label maps has a known class" in told
    Image.fromarray(np.zeros((120, 64), np.uint8)).save(first)
    Image.fromarray(np.zeros((64, 120), np.uint8)).save(second)
    code, told = failing(tiny_bundle, tmp_path / "out", **options)
    assert code == 1
    assert "and 64×120, of two shapes: are they a pair?" in told


def test_a_stray_value_shows(tiny_bundle: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "d", 2)
    path = min((data / "labels/val").iterdir())
    stray = np.asarray(Image.open(path)).copy()
    stray[0, 0] = 60
    Image.fromarray(stray).save(path)
    code, told = failing(tiny_bundle, tmp_path / "out", data=data / "images/val", labels=data / "labels/val")
    assert code == 0
    assert re.search(r"note: 5\d of 61 classes neither occur nor are predicted", told)


def test_where_nothing_can_be_written_is_told_first(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        code, told = failing(tiny_bundle, out, data=data / "images/val", labels=data / "labels/val")
        assert code == 2
        assert "is no folder that can be written" in told


def test_values_beyond_the_classes_are_named(tiny_bundle: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "d", 2)
    first = sorted((data / "labels/val").iterdir())[0]
    Image.fromarray(np.full((64, 120), 40, np.uint8)).save(first)
    code, told = failing(tiny_bundle, tmp_path / "out", data=data, dataset="camvid")
    assert code == 1
    assert "has the value 40, but there are 11 classes (0 to 10; 255 is ignored)" in told


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, "nothing to measure against"),
        ({"labels": "labels/train"}, "have no label map"),
        ({"labels": "labels/no"}, "--labels names the folder"),
        ({"dataset": "camvid"}, "CamVid is laid out as"),
        ({"dataset": "folder"}, "have no label map: take a split that has them, or give --labels"),
        ({"labels": "labels/val", "protocol": "papers"}, "write served or crop"),
        ({"labels": "labels/val", "device": "tpu"}, "write auto, cpu, cuda"),
        ({"labels": "labels/val", "refine": "slow"}, "--refine slow: write dense, fast, pydensecrf"),
        ({"labels": "labels/val", "crf": True, "crf_size": "photo"}, "--crf-size photo: write input, source"),
        ({"labels": "labels/val", "crf_size": "source"}, "belongs to --crf or --refine: add one"),
        ({"labels": "labels/val", "ignore": "sky"}, "--ignore sky: it is no value; names are those of --classes"),
        ({"labels": "labels/val", "ignore": ",".join(map(str, range(255)))}, "--ignore leaves no class"),
        ({"labels": "labels/val", "classes": "images"}, "it cannot be read"),
        ({"labels": "labels/val", "probe_split": "val"}, "belong to --linear-probe"),
        ({"labels": "labels/val", "linear_probe": True}, "learns from labels that are not the evaluated ones"),
    ],
)
def test_wrong_usage(options: dict, wanted: str, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    given = {k: data / v if k in ("labels", "classes") else v for k, v in options.items()}
    code, told = failing(tiny_bundle, tmp_path, data=data / "images/val", **given)
    assert code == 2, told
    assert wanted in told


def test_a_package_that_is_not_there_is_told_first(
    tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "missing", lambda: "pydensecrf is not installed")
    where = {"data": data / "images/val", "labels": data / "labels/val"}
    code, told = failing(tiny_bundle, tmp_path, refine="pydensecrf", **where)
    assert code == 2
    assert "error: --refine pydensecrf: pydensecrf is not installed" in told
    assert failing(tiny_bundle, tmp_path, refine="fast", limit=1, **where)[0] == 0


def test_edges_are_asked_for_in_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "missing", lambda: None)
    assert evaluate.edges_of(False, [], []) == ()
    assert evaluate.edges_of(True, ["fast", "dense", "fast"], []) == (Edges("dense"), Edges("fast"))
    asked = evaluate.edges_of(False, ["pydensecrf"], ["source", "input"])
    assert asked == (Edges("pydensecrf", "source"), Edges("pydensecrf", "input"))
    assert evaluate.default_workers(asked) == 1  # one that holds Python's lock would make the others wait
    assert evaluate.default_workers([Edges("fast")]) == min(8, os.cpu_count() or 1)


def ontology(bundle: Path, out: Path, **more: object) -> Path:
    """A file of classes taught to the tiny bundle: two by a cluster, one by examples, one that no label is called."""
    code = {"blue": (-0.58, -0.58, 0.58), "white": (0.58, 0.58, 0.58)}
    examples = {name: [{"n": 1, "code": code[name], "at": [0.5, 0.5]}] for name in code}
    classes = [
        {"id": 3, "name": "RED", "color": "#ff0000", "clusters": [0]},
        {"id": 1, "name": "leaf", "color": "#00ff00", "clusters": [1]},
        {"id": 7, "name": "blue", "color": "#0000ff", "clusters": [], "examples": examples["blue"]},
        {"id": 4, "name": "White", "color": "#ffffff", "clusters": [3], "examples": examples["white"]},
    ]
    encoder = json.loads((bundle / "manifest.json").read_text())["files"]["encoder.onnx"]
    file = {"tessera": "classes", "version": 1, "model": "tiny", "encoder": encoder, "dim": 3, "classes": classes}
    out.write_text(json.dumps(file | more))
    return out


def test_classes_that_people_taught_are_scored_by_name(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('["red", "leaf or blue", "white", "black"]')
    names = {"classes": tmp_path / "names.json"}
    given: dict[str, object] = {"data": data / "images/val", "labels": data / "labels/val", "refine": ["fast"]}
    file = ontology(tiny_bundle, tmp_path / "ontology.json")
    facts = ran(tiny_bundle, tmp_path / "out", **given, **names, taught=file)
    assert [one["name"] for one in facts["rows"]] == ["plain", "fast", "classes, plain", "classes, fast"]
    found = row(facts, "classes, plain")
    assert (found["head"], found["taught"]) == ("classes", ["leaf", "RED", "White", "blue"])
    assert found["class_of_cluster"] == [None, "red", "white", None]
    assert found["iou"]["red"] > 0.5
    assert found["iou"]["leaf or blue"] == 0
    assert np.array(found["confusion"]).sum() == np.array(row(facts, "plain")["confusion"]).sum()
    assert any("errors: leaf, blue" in note for note in facts["notes"])
    assert any("no pixel is given to: leaf or blue, black" in note for note in facts["notes"])
    assert "taught classes" in (tmp_path / "out/evaluation.html").read_text()
    code, said = failing(
        tiny_bundle, tmp_path / "other", data=data / "images/val", labels=data / "labels/val", classes=file
    )
    assert (code, "no class is called as one of the labels': leaf, RED" in said) == (2, True)  # known by its content


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"encoder": "0" * 64, "classes": [{"id": 1, "name": "red", "color": "#ff0000"}]}, "no class has an example"),
        ({"classes": [{"id": 1, "name": "sea", "color": "#ff0000", "clusters": [0]}]}, "no class is called as one of"),
        ({"classes": [{"id": 1, "name": "red", "color": "#ff0000", "clusters": [5]}]}, "has 5 clusters"),
        ({"version": 2}, "version"),
    ],
)
def test_a_file_of_classes_that_does_not_fit(
    more: dict, wanted: str, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    file = ontology(tiny_bundle, tmp_path / "ontology.json", **more)
    (tmp_path / "names.txt").write_text("red\nleaf or blue\nwhite\nblack\n")
    given = {"data": data / "images/val", "labels": data / "labels/val", "classes": tmp_path / "names.txt"}
    code, said = failing(tiny_bundle, tmp_path / "out", **given, taught=file)
    assert code == 2
    assert wanted in said
    assert "ontology.json" in said


def test_what_is_no_bundle(data: Path, tmp_path: Path) -> None:
    code, told = failing(data, tmp_path, data=data / "images/val", labels=data / "labels/val")
    assert code == 2
    assert "holds no bundle: name a bundle's folder" in told


def test_a_probe_on_the_evaluated_images_is_asked_for_by_name(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    how = {"data": data, "dataset": "camvid", "linear_probe": True, "probe_steps": 1}
    code, told = failing(tiny_bundle, tmp_path, split="train", **how)
    assert code == 2
    assert "learns from 5 of the images it is measured on" in told
    code, told = failing(tiny_bundle, tmp_path, split="train", probe_split="train", **how)
    assert code == 0
    assert "its rows say what it remembers" in told
    assert failing(tiny_bundle, tmp_path, split="val", **how)[0] == 0
