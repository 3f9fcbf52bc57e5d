"""OME-Zarr as zarr itself writes it, in both versions; label images as zarr itself reads them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from models.io import ome_zarr
from models.io.ome_zarr import LabelImageWriter, ZarrRows, read_multiscale
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart, UnsupportedImage

RNG = np.random.default_rng(0)
CELLS = RNG.integers(0, 4000, (2, 4, 3, 130, 90), np.uint16)  # t, c, z, y, x
RGB = RNG.integers(0, 256, (3, 130, 90), np.uint8)


def store(path: Path, data: np.ndarray, axes: str, version: str = "0.5", channels: Any = None, **how: Any) -> Path:
    """An image of two levels."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for number, level in enumerate([data, data[..., ::2, ::2]]):
        group.create_array(str(number), data=level, chunks=(*[1] * (level.ndim - 2), 32, 50), **how)
    scale = [[1.0] * (len(axes) - 2) + [0.5 * n, 0.5 * n] for n in (1, 2)]
    datasets = [{"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale[n]}]} for n in range(2)]
    multiscale = {"axes": [{"name": a} for a in axes], "datasets": datasets}
    ome: dict[str, Any] = {} if channels is None else {"omero": {"channels": channels}}
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": version, **multiscale}], **ome})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [multiscale], **ome}})
    return path


def read(path: Path, **choice: Any) -> tuple[np.ndarray, ZarrRows]:
    source = ZarrRows(path, Limits(), Choice(**choice))
    height = source.size[0]
    parts = [source.rows(top, min(top + 40, height))[0] for top in range(0, height, 40)]
    return np.concatenate(parts), source


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_colors_planes_and_channels_are_found(version: str, tmp_path: Path) -> None:
    image, source = read(store(tmp_path / "rgb.zarr", RGB, "cyx", version))
    assert (image == RGB.transpose(1, 2, 0)).all()
    assert (source.size, source.pages, source.depth_rule, source.warnings) == ((130, 90), 1, None, ())
    cells = store(tmp_path / "cells.zarr", CELLS, "tczyx", version)
    image, source = read(cells, page=4, bands=(2,), depth="minmax")
    plane = CELLS[1, 1, 1].astype(float)
    assert source.pages == 6
    assert np.abs(image[..., 0] - np.clip(plane / 4000 * 255, 0, 255)).max() <= 4
    assert (image[..., 0] == image[..., 2]).all()
    image, _ = read(cells, depth="full", bands=(4, 1, 2))
    assert (image == np.rint(CELLS[0, [3, 0, 1], 0].transpose(1, 2, 0) / 65535 * 255)).all()
    _, first = read(cells)
    assert "of 4 channels, 1, 2, 3 are shown" in first.warnings[0]
    with pytest.raises(NoSuchPart):
        read(cells, page=6)
    with pytest.raises(NoSuchPart):
        read(cells, bands=(5,))
    with pytest.raises(NoSuchPart):
        read(cells, level=2)


def test_levels_and_the_channels_that_viewers_show(tmp_path: Path) -> None:
    active = [{"active": i in (1, 3)} for i in range(4)]
    path = store(tmp_path / "a.zarr", CELLS[0, :, 0], "cyx", channels=active)
    image, source = read(path, level=1, depth="full")
    assert source.size == (65, 45)
    assert (image[..., 0] == np.rint(CELLS[0, 1, 0, ::2, ::2] / 65535 * 255)).all()


def test_the_range_is_one_for_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "a.zarr", CELLS[0, 0, 0], "yx")
    image, source = read(path)
    assert source.depth_rule is not None
    assert source.depth_rule.endswith("of 3 of 3 rows of chunks")
    low, high = np.quantile(CELLS[0, 0, 0], [0.02, 0.98])
    assert np.abs(image[..., 0] - np.clip((CELLS[0, 0, 0] - low) / (high - low) * 255, 0, 255)).max() <= 1
    monkeypatch.setattr(ome_zarr, "_LEVEL_PX", (100, 5000))
    assert (read(path)[1].depth_rule or "").endswith("of level 1 of the pyramid")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_label_image_is_read_by_zarr_and_told_of_as_the_format_has_it(version: str, tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", CELLS, "tczyx", version)
    labels = RNG.integers(0, 5, (1300, 1100), np.uint8)
    colors = RNG.integers(0, 256, (5, 3), np.uint8)
    for _ in range(2):  # the second takes the place of the first
        writer = LabelImageWriter(path, (1300, 1100), read_multiscale(path), names=tuple("abcde"), colors=colors)
        with writer as image:
            for top in range(0, 1300, 170):
                image.write(top, 0, labels[top : top + 170])
    group = zarr.open_group(str(path), mode="r")
    outer = dict(group["labels"].attrs)
    inner = dict(group["labels/tessera"].attrs)
    if version == "0.5":
        assert outer["ome"] == {"version": "0.5", "labels": ["tessera"]}
        inner = inner["ome"]
        multiscale, label = inner["multiscales"][0], inner["image-label"]
    else:
        assert outer == {"labels": ["tessera"]}
        multiscale, label = inner["multiscales"][0], inner["image-label"]
        assert (multiscale["version"], label["version"]) == ("0.4", "0.4")
    assert [axis["name"] for axis in multiscale["axes"]] == ["t", "z", "y", "x"]
    assert label["colors"][3] == {"label-value": 3, "rgba": [*colors[3].tolist(), 255]}
    assert label["properties"][1] == {"label-value": 1, "name": "b"}
    assert label["source"] == {"image": "../../"}
    sizes = []
    for number, dataset in enumerate(multiscale["datasets"]):
        array = np.asarray(group[f"labels/tessera/{dataset['path']}"])
        step = 2**number
        assert (array[0, 0] == labels[::step, ::step]).all()
        assert dataset["coordinateTransformations"][0]["scale"][2:] == pytest.approx([0.5 * step] * 2, rel=0.01)
        sizes.append(array.shape[2:])
    assert sizes == [(1300, 1100), (650, 550), (325, 275)]
    assert sorted(p.name for p in (path / "labels").iterdir() if p.is_dir()) == ["tessera"]
    assert read_multiscale(path).levels[0].path == "0"


def test_labels_alone_are_a_store_and_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    of = read_multiscale(store(tmp_path / "a.zarr", RGB, "cyx"))
    with pytest.raises(ValueError, match="whole rows"), LabelImageWriter(tmp_path / "b.zarr", (10, 10), of) as image:
        image.write(0, 2, np.zeros((5, 5), np.uint8))
    assert list((tmp_path / "b.zarr" / "labels").iterdir()) == []
    with LabelImageWriter(tmp_path / "b.zarr", (10, 10), of) as image:
        image.write(0, 0, np.full((10, 10), 3, np.uint8))
    assert np.asarray(zarr.open_group(str(tmp_path / "b.zarr"), mode="r")["labels/tessera/0"]).max() == 3


def test_what_is_unsound_or_dangerous_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "a.zarr", RGB, "cyx", "0.4")
    meta = json.loads((path / "0" / ".zarray").read_text())
    for change, error in [
        ({"compressor": {"id": "pickle"}}, UnsupportedImage),
        ({"filters": [{"id": "pickle"}]}, UnsupportedImage),
        ({"filters": [{"id": "vlen-utf8"}]}, UnsupportedImage),
        ({"filters": 3}, UnsupportedImage),
        ({"compressor": [1]}, UnsupportedImage),
        ({"shape": [130, 90], "chunks": [32, 50]}, ImageError),
        ({"dtype": "|O"}, ImageError),
        ({"shape": [3, 0, 90]}, ImageError),
        ({"chunks": [3, 100_000, 100_000]}, ImageTooLarge),
        ({"zarr_format": 9}, ImageError),
    ]:
        (path / "0" / ".zarray").write_text(json.dumps({**meta, **change}))
        with pytest.raises(error):
            read(path)
    (path / "0" / ".zarray").write_text(json.dumps(meta))
    chunk = path / "0" / "0.0.0"
    chunk = chunk if chunk.exists() else path / "0" / "0" / "0" / "0"
    (tmp_path / "outside").write_bytes(chunk.read_bytes())
    chunk.unlink()
    chunk.symlink_to(tmp_path / "outside")
    with pytest.raises(ImageError, match="lead out"):
        read(path)
    chunk.unlink()
    os.mkfifo(chunk)
    read(path)  # a chunk that is no file is not there
    chunk.unlink()
    chunk.write_bytes(b"damaged")
    with pytest.raises(ImageError, match="chunk"):
        read(path)
    attributes = json.loads((path / ".zattrs").read_text())
    for changed in [
        {},
        {"multiscales": [{"version": "0.1"}]},
        {"multiscales": [{"version": "0.4", "axes": [{"name": "x"}, {"name": "y"}], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{**attributes["multiscales"][0], "datasets": []}]},
        {"multiscales": [{**attributes["multiscales"][0], "datasets": [{"path": "../outside"}]}]},
        {"multiscales": [{**attributes["multiscales"][0], "datasets": [{"path": "9"}]}]},
        {"multiscales": [{**attributes["multiscales"][0], "axes": 5}]},
        {"multiscales": [{**attributes["multiscales"][0], "axes": []}]},
        {"multiscales": 4},
        {"ome": 4},
        {"multiscales": [{**attributes["multiscales"][0], "datasets": [3]}]},
    ]:
        (path / ".zattrs").write_text(json.dumps(changed))
        with pytest.raises(ImageError):
            read(path)
    (path / ".zattrs").write_text("[" * 10_000)
    with pytest.raises(ImageError):
        read(path)
