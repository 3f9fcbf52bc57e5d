"""Rows read one by one against the same file decoded as a whole."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from models.io import decode, tiff_rows
from models.io.file_bytes import FileBytes
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart, UnsupportedImage
from models.io.tiff_segments import Segments

RNG = np.random.default_rng(0)
GRAY16 = RNG.integers(0, 5000, (300, 210), np.uint16)
FOUR16 = RNG.integers(0, 5000, (300, 210, 4), np.uint16)
RGB8 = RNG.integers(0, 256, (300, 210, 3), np.uint8)
FLOATS = RNG.normal(size=(300, 210)).astype(np.float32)

FILES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "tiles": (RGB8, {"photometric": "rgb", "tile": (64, 48), "compression": "zlib"}),
    "one plain strip": (FOUR16, {"photometric": "minisblack", "planarconfig": "contig", "rowsperstrip": 300}),
    "strips of a row": (RGB8, {"photometric": "rgb", "rowsperstrip": 1, "compression": "lzw", "predictor": True}),
    "planes": (FOUR16.transpose(2, 0, 1), {"photometric": "minisblack", "planarconfig": "separate", "tile": (80, 80)}),
    "plain planes": (FOUR16.transpose(2, 0, 1), {"photometric": "minisblack", "planarconfig": "separate"}),
    "big-endian": (GRAY16, {"byteorder": ">", "rowsperstrip": 7, "compression": "zlib", "predictor": True}),
    "jpeg": (RGB8, {"photometric": "ycbcr", "tile": (64, 64), "compression": "jpeg"}),
    "alpha": (np.dstack([RGB8, RGB8[..., :1] // 100 * 127]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "white is zero": (GRAY16, {"photometric": "miniswhite", "tile": (64, 64)}),
    "BigTIFF": (GRAY16, {"bigtiff": True, "tile": (128, 128)}),
}


def read(path: Path, choice: Choice, step: int = 50, overlap: int = 17) -> tuple[np.ndarray, np.ndarray, str | None]:
    with tiff_rows.open_rows(path, Limits(), choice) as source:
        height, width = source.size
        image, valid = np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool)
        top = 0
        while top < height:
            bottom = min(top + step, height)
            image[top:bottom], some = source.rows(top, bottom)
            if some is not None:
                valid[top:bottom] = some
            top = bottom if bottom == height else bottom - overlap
        return image, valid, source.depth_rule


def same(path: Path, choice: Choice) -> None:
    whole = decode.inspect(path.read_bytes(), choice=choice).decode()
    image, valid, _ = read(path, choice)
    assert (valid == (True if whole.valid is None else whole.valid)).all()
    assert (image == whole.image).all()


@pytest.mark.parametrize("case", FILES)
def test_rows_are_those_of_the_whole(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, how = FILES[case]
    tifffile.imwrite(tmp_path / "a.tif", samples, **how)
    monkeypatch.setattr(tiff_rows, "PLAIN_BYTES", 64 * 1024)
    same(tmp_path / "a.tif", Choice(depth="full", level=0))


def geotiff(path: Path, data: np.ndarray, **how: Any) -> Path:
    profile = {"driver": "GTiff", "height": data.shape[1], "width": data.shape[2], "count": len(data)}
    profile |= {"dtype": data.dtype, "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), "crs": "EPSG:32633"}
    with rasterio.open(path, "w", **profile, **how) as dataset:
        dataset.write(data)
    return path


def test_no_data_is_told_of_rows_as_of_the_whole(tmp_path: Path) -> None:
    data = FOUR16.transpose(2, 0, 1).copy()
    data[:, 100:180, 30:90] = 77
    same(
        geotiff(tmp_path / "a.tif", data, nodata=77, tiled=True, blockxsize=64, blockysize=64), Choice("full", level=0)
    )
    data[:, :, :64] = 77
    sparse = geotiff(tmp_path / "b.tif", data, nodata=77, tiled=True, blockxsize=64, blockysize=64, sparse_ok=True)
    same(sparse, Choice("full", level=0))
    floats = np.where(RNG.random((1, 300, 210)) < 0.1, np.nan, FLOATS).astype(np.float32)
    same(geotiff(tmp_path / "c.tif", floats), Choice("full", level=0))


def test_a_mask_is_heard(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = geotiff(
            tmp_path / "a.tif", RGB8.transpose(2, 0, 1), photometric="rgb", tiled=True, blockxsize=64, blockysize=64
        )
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(RNG.random((300, 210)) < 0.5)
    same(path, Choice(level=0))


@pytest.mark.parametrize("samples", [GRAY16, FLOATS, (GRAY16.astype(np.int32) - 2500) * 1000])
def test_the_range_of_pieces_is_nearly_that_of_the_whole_and_the_same_everywhere(
    samples: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, tile=(32, 32), compression="zlib")
    monkeypatch.setattr(tiff_rows, "_SAMPLE_PX", 20 * 32 * 32)
    whole = decode.inspect((tmp_path / "a.tif").read_bytes()).decode()
    image, _, rule = read(tmp_path / "a.tif", Choice(level=0))
    assert np.abs(image.astype(int) - whole.image).max() <= 8
    assert rule is not None
    assert rule.startswith("percentile 2–98: ")
    assert rule.endswith(" → 0..255, of 20 of 70 tiles")


def test_the_range_is_taken_of_a_level_where_there_is_one_and_levels_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = geotiff(tmp_path / "a.tif", GRAY16[None], tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    monkeypatch.setattr(tiff_rows, "_LEVEL_PX", (100, 20000))
    image, _, rule = read(path, Choice(level=0))
    whole = decode.inspect(path.read_bytes()).decode().image
    assert np.abs(image.astype(int) - whole).max() <= 8
    assert rule is not None
    assert rule.endswith("of level 1 of the pyramid")
    with tiff_rows.open_rows(path, Limits(), Choice(level=2)) as source:
        assert source.size == (75, 53)
    with pytest.raises(NoSuchPart), tiff_rows.open_rows(path, Limits(), Choice(level=3)):
        pass


def test_pieces_too_large_to_be_read_one_by_one_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY16, rowsperstrip=300, compression="zlib")
    monkeypatch.setattr(tiff_rows, "PIECE_BYTES", 2**16)
    with (
        pytest.raises(ImageTooLarge, match="gdal_translate -of COG"),
        tiff_rows.open_rows(tmp_path / "a.tif", Limits(), Choice(level=0)),
    ):
        pass


def test_every_piece_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB8, photometric="rgb", tile=(64, 64), compression="zlib")
    times: list[int] = []
    original = Segments.read

    def counted(self: Segments, plane: int, row: int, column: int) -> np.ndarray | None:
        times.append(row * 10 + column)
        return original(self, plane, row, column)

    monkeypatch.setattr(Segments, "read", counted)
    read(tmp_path / "a.tif", Choice(level=0), step=40, overlap=10)
    assert len(times) - len(set(times)) <= 20  # those that the range was asked of
    assert len(set(times)) == 20


def test_what_is_no_file_or_turned_or_cut_short_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ImageError, match="no regular file"), FileBytes.open(path):
            pass
    tifffile.imwrite(tmp_path / "a.tif", RGB8, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(UnsupportedImage, match="orientation 6"):
        read(tmp_path / "a.tif", Choice(level=0))
    tifffile.imwrite(tmp_path / "b.tif", RGB8, photometric="rgb", tile=(64, 64))
    with tiff_rows.open_rows(tmp_path / "b.tif", Limits(), Choice(level=0)) as source:
        source.rows(0, 64)
        os.truncate(tmp_path / "b.tif", 20_000)
        with pytest.raises(ImageError, match="truncated"):
            source.rows(200, 300)


@pytest.mark.parametrize("how", [{}, {"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_what_is_held_does_not_grow_with_the_file(how: dict[str, Any], tmp_path: Path) -> None:
    samples = np.tile(FOUR16, (12, 15, 1))  # 3600×3150, 91 MB
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="minisblack", planarconfig="contig", **how)
    del samples
    tracemalloc.start()
    try:
        with tiff_rows.open_rows(tmp_path / "a.tif", Limits(), Choice(level=0)) as source:
            for top in range(0, 3600, 60):
                source.rows(top, min(top + 80, 3600))
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 40e6  # 2^21 pixels of three bands, twice, for the range; then less
