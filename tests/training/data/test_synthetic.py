"""The drawn street: the same for a seed, at any size, with its parts where a street has them."""

from pathlib import Path

import numpy as np
import pytest

from training.data.synthetic import main, street


def test_a_seed_draws_one_street() -> None:
    assert (street((90, 120), seed=3) == street((90, 120), seed=3)).all()
    assert (street((90, 120), seed=3) != street((90, 120), seed=4)).any()


def test_sky_is_blue_and_road_is_gray() -> None:
    image = street((120, 160)).astype(int)
    sky, road = image[5:30, 60:100].mean((0, 1)), image[100:118, 40:70].mean((0, 1))
    assert sky[2] > sky[0] + 20
    assert np.ptp(road) < 25
    assert sky.mean() > road.mean() + 40


def test_the_command_draws_so_many_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["synthetic", "streets", "2"])
    main()
    assert sorted(path.name for path in (tmp_path / "streets").iterdir()) == ["000.jpg", "001.jpg"]
    monkeypatch.setattr("sys.argv", ["synthetic", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert [path.name for path in tmp_path.iterdir()] == ["streets"]
