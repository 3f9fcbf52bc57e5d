"""Drawn pictures: the same for a seed, at any size, with labels that fit what is drawn."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import UsageError
from training.data import synthetic
from training.data.synthetic import class_names, draw, kinds, street
from training.data.synthetic.__main__ import main
from training.data.synthetic.canvas import Drawn, Grain, cells


@cache
def some(kind: str) -> list[Drawn]:
    """Small pictures of a kind."""
    return [draw(kind, (72, 96), seed) for seed in range(24)]


def test_a_seed_draws_one_street() -> None:
    assert (street((90, 120), seed=3) == street((90, 120), seed=3)).all()
    assert (street((90, 120), seed=3) != street((90, 120), seed=4)).any()


def test_sky_is_blue_and_road_is_gray() -> None:
    image = street((120, 160)).astype(int)
    sky, road = image[5:30, 60:100].mean((0, 1)), image[100:118, 40:70].mean((0, 1))
    assert sky[2] > sky[0] + 20
    assert np.ptp(road) < 25
    assert sky.mean() > road.mean() + 40


def test_every_file_but_the_shared_ones_is_a_kind() -> None:
    assert kinds() == ["aerial", "streets", "textures", "tissue"]
    with pytest.raises(UsageError, match="'clouds': there are aerial, streets"):
        draw("clouds")


@pytest.mark.parametrize("kind", kinds())
def test_a_seed_draws_one_picture_of_a_kind_with_its_label_map(kind: str) -> None:
    first, again, other = draw(kind, (60, 90), 3), draw(kind, (60, 90), 3), draw(kind, (60, 90), 4)
    assert first.image.shape == (60, 90, 3)
    assert first.labels.shape == (60, 90)
    assert first.image.dtype == first.labels.dtype == np.uint8
    assert (first.image == again.image).all()
    assert (first.labels == again.labels).all()
    assert (first.image != other.image).any()


@pytest.mark.parametrize("kind", kinds())
def test_every_class_is_there_and_none_is_most_of_it(kind: str) -> None:
    names = class_names(kind)
    counts = np.bincount(np.concatenate([one.labels.ravel() for one in some(kind)]), minlength=256)
    shares = counts / counts.sum()
    assert counts[len(names) :].sum() == 0
    assert shares[: len(names)].min() > 0.004
    assert shares.max() < 0.5
    assert shares[: len(names)].max() > 2.5 * shares[: len(names)].min()  # as unequal as real ones


@pytest.mark.parametrize("kind", ["aerial", "textures", "tissue"])
def test_labels_change_where_the_picture_does(kind: str) -> None:
    """Colors jump by more across a border of two classes than within them: maps are where the things are."""
    across, within = [], []
    for image, labels in some(kind):
        jump = np.abs(image[:, 2:].astype(float) - image[:, :-2]).mean(2)
        border = labels[:, :-2] != labels[:, 2:]
        across.append(jump[border].mean())
        within.append(jump[~border].mean())
    assert np.mean(across) > 1.5 * np.mean(within)


@pytest.mark.parametrize(("kind", "most"), [("aerial", 0.7), ("textures", 0.45), ("tissue", 0.6)])
def test_color_alone_does_not_tell_classes_apart(kind: str, most: float) -> None:
    """Even who is told every label is often wrong where a color is all that is seen: the best guess for 512 colors."""
    colors = np.concatenate([(one.image // 32).reshape(-1, 3) for one in some(kind)]).astype(int) @ [64, 8, 1]
    labels = np.concatenate([one.labels.ravel() for one in some(kind)])
    table = np.zeros((512, len(class_names(kind))), int)
    np.add.at(table, (colors, labels), 1)
    assert table.max(axis=1).sum() / table.sum() < most


def test_grain_is_its_own_values_at_whole_places_and_halfway_between_elsewhere() -> None:
    grain = Grain(np.random.default_rng(0))
    whole = grain(np.array([3.0, 4.0]), np.array([7.0, 7.0]))
    assert grain(np.array([3.5]), np.array([7.0]))[0] == pytest.approx(whole.mean())
    assert grain(np.array([3.0 - 256]), np.array([7.0 + 256]))[0] == whole[0]


def test_cells_are_those_of_the_nearest_of_all_points() -> None:
    v, u = np.mgrid[0:4:0.21, 0:5:0.23].astype(np.float32)
    nearest, following, number = cells(u, v, np.random.default_rng(1))
    points = np.random.default_rng(1).uniform(size=(64, 64, 3)).astype(np.float32)
    rows, columns = (one.ravel() for one in np.mgrid[-3:8, -3:8])
    x, y = columns + points[rows & 63, columns & 63, 0], rows + points[rows & 63, columns & 63, 1]
    far = np.hypot(x - u[..., None], y - v[..., None])
    order = np.argsort(far, axis=-1)
    assert nearest == pytest.approx(np.take_along_axis(far, order, -1)[..., 0], abs=1e-5)
    assert following == pytest.approx(np.take_along_axis(far, order, -1)[..., 1], abs=1e-5)
    assert number == pytest.approx(points[rows & 63, columns & 63, 2][order[..., 0]])


def test_the_command_draws_so_many_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["synthetic", "streets", "2"])
    main()
    assert sorted(path.name for path in (tmp_path / "streets").iterdir()) == ["000.jpg", "001.jpg"]
    monkeypatch.setattr("sys.argv", ["synthetic", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert [path.name for path in tmp_path.iterdir()] == ["streets"]


def test_the_command_draws_another_kind_and_its_label_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    monkeypatch.setattr("sys.argv", ["synthetic", str(photos), "1", "--kind", "tissue", "--labels", str(labels)])
    main()
    assert "3 lumen" in capsys.readouterr().out
    drawn = synthetic.draw("tissue", (240, 320), 0)
    assert (np.asarray(Image.open(labels / "000.png")) == drawn.labels).all()
    saved = np.asarray(Image.open(photos / "000.jpg")).astype(int)
    assert np.abs(saved - drawn.image).mean() < 6
