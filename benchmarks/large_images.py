"""What files far beyond the memory cost: the most that a process holds, and how near it comes to the bare engine.

    python -m benchmarks.large_images [--bundle BUNDLE] [--side 12000] [--only cog] [--folder DIR]

Files of side×side pixels with four bands of 16 bits are drawn into a folder: a cloud-optimized GeoTIFF, one in strips,
and one that is a single plain strip. Each is segmented by a process of its own, from the file to a cloud-optimized
GeoTIFF of labels. `peak` is that process's largest resident memory, all of it: Python, engine, GDAL. `raw` is the
engine alone, in a loop over windows of the same size in the same process, before and after; `share` is how many windows
a second the whole way makes of it.

Seams: the file's upper left part is segmented twice, the second time from half a window's step farther in, so that all
windows lie elsewhere. `seam` is the share of pixels whose labels differ in the columns and rows next to where windows
of the first begin or end, `interior` that of all others.

Held against BOUNDS; the exit code is 1 where one is passed. Written to benchmarks/results/large-images.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks import load, machine
from models.bundle import Bundle
from models.io.rows import Rows
from models.manifest import Manifest
from models.windows import Layout
from service.engines import open_engine
from service.formats.result import ClusterStyle
from service.inference import large, windowed
from service.inference.options import Options
from service.settings import Settings, embedded
from training.data.synthetic import street

Array = NDArray[Any]

PEAK_MB, SHARE, SEAM = 700, 0.8, 0.01
BOUNDS = {"peak_mb": PEAK_MB, "share": SHARE, "seam_over_interior": SEAM}
CASES = ("cog", "strips", "one-strip")
_DRAWN = 500
_RAW_S = 4.0
_SEAM_SIDE = 3000


def draw(path: Path, case: str, side: int, streets: int = 16) -> None:
    """Streets beside streets, so many different ones, with the noise of a camera in the lower bits."""
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 4, "dtype": "uint16", "crs": "EPSG:32633"}
    profile |= {"transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "BIGTIFF": "YES", "interleave": "pixel"}
    plain = path if case != "cog" else path.with_suffix(".plain.tif")
    how: dict[str, Any] = {"compress": "deflate", "zlevel": 1}
    if case == "cog":
        how |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    if case == "one-strip":
        whole = tifffile.memmap(path, shape=(side, side, 4), dtype="uint16", bigtiff=True, photometric="minisblack",
                                planarconfig="contig")  # fmt: skip
        for top, bands in _rows(side, streets):
            whole[top : top + len(bands)] = bands
        whole.flush()
        return
    with rasterio.open(plain, "w", **profile, **how) as file:
        for top, bands in _rows(side, streets):
            file.write(bands.transpose(2, 0, 1), window=Window(0, top, bands.shape[1], bands.shape[0]))
    if case == "cog":
        from rasterio.shutil import copy

        copy(plain, path, driver="COG", COMPRESS="DEFLATE", BIGTIFF="YES", OVERVIEW_RESAMPLING="AVERAGE")
        plain.unlink()


def _rows(side: int, streets: int) -> Iterator[tuple[int, Array]]:
    """The picture in bands of rows, uint16 [n, side, 4], and where each begins."""
    rng = np.random.default_rng(0)
    drawn = [street((_DRAWN, _DRAWN), seed=seed).astype(np.uint16) * 40 + 300 for seed in range(streets)]
    for top in range(0, side, _DRAWN):
        row = np.concatenate([drawn[i] for i in rng.integers(0, streets, -(-side // _DRAWN))], axis=1)
        bands = np.dstack([row, row[..., 1:2] // 2 + row[..., :1] // 3])[: side - top, :side]
        yield top, bands + rng.integers(0, 64, bands.shape, np.uint16)


def raw(predict: Any, window: tuple[int, int], seconds: float = _RAW_S) -> float:
    """Windows a second of the bare engine."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, *window, 3), np.uint8)
    predict(pixels)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        predict(pixels)
        count += 1
    return count / (time.perf_counter() - began)


class _Shifted:
    """Rows of a source from some pixels in, and so many of them."""

    pages, depth_rule, warnings, held_bytes = 1, None, (), 0

    def __init__(self, source: Any, by: int, side: int) -> None:
        self._source, self._by = source, by
        self.size = (side - by, side - by)

    def rows(self, top: int, bottom: int) -> Rows:
        image, _ = self._source.rows(top + self._by, bottom + self._by)
        return image[:, self._by : self._by + self.size[1]], None


def seams(path: Path, manifest: Manifest, predict: windowed.Predict, side: int = _SEAM_SIDE) -> tuple[float, float]:
    """The share of pixels that differ from those of windows that lie elsewhere: next to seams, and elsewhere."""
    maps = []
    layout = Layout.of((side, side), manifest.input, manifest.code.stride)
    by = (layout.columns[1] - layout.columns[0]) // 2 * layout.cell
    for shift in (0, by):
        with large.open_rows(path, large.choice_of(Options(), manifest)) as source:
            found = [part.labels() for part in windowed.parts(_Shifted(source, shift, side), manifest, predict)]
        maps.append(np.concatenate(found))
    differs = maps[0][by:, by:] != maps[1]
    seam = np.zeros((side, side), bool)
    cells = layout.window[0] // layout.cell
    for starts, at in ((layout.rows, seam), (layout.columns, seam.T)):
        for edge in {x * layout.cell for start in starts for x in (start, start + cells)}:
            at[max(0, edge - layout.cell) : edge + layout.cell] = True
    seam = seam[by:, by:]
    return float(differs[seam].mean()), float(differs[~seam].mean())


def one(path: Path, bundle: Path, folder: Path, with_seams: bool) -> dict[str, Any]:
    """A process's figures."""
    model = Bundle.load(bundle)
    engine = open_engine(model, Settings(engine="onnxruntime", state=folder))
    predict = windowed.on_engine(engine, engine.batch)
    window = windowed.layout_of((1, 1), model.manifest).window
    count = len(model.manifest.clusters)
    names = tuple(cluster.name for cluster in model.manifest.clusters)
    style = ClusterStyle(names, model.colors, frozenset(), np.arange(count, dtype=np.uint8))
    before = raw(engine, window)
    began = time.perf_counter()
    found = large.segment_large(
        path, folder / "labels.tif", model.manifest, predict, Options(), style=style, table=style.becomes
    )
    took = time.perf_counter() - began
    peak_mb = _peak_mb()
    after = raw(engine, window)
    figures = {
        "file_mb": path.stat().st_size / 1e6,
        "windows": found.windows,
        "wall_s": took,
        "peak_mb": peak_mb,
        "raw_windows_s": (before + after) / 2,
        "windows_s": found.windows / took,
        "share": found.windows / took / ((before + after) / 2),
        "labels_mb": (folder / "labels.tif").stat().st_size / 1e6,
        "depth_rule": found.depth_rule,
    }
    if with_seams:
        figures["seam"], figures["interior"] = seams(path, model.manifest, predict)
    return figures


def _peak_mb() -> float:
    """Of this process. Not getrusage's, which keeps what the process held that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def over(figures: dict[str, Any]) -> list[str]:
    """Which bounds are not kept, in words."""
    found = []
    if figures["peak_mb"] > PEAK_MB:
        found.append(f"{figures['peak_mb']:.0f} MB held, {PEAK_MB} are the most")
    if figures["share"] < SHARE:
        found.append(f"{figures['share']:.2f} of the engine, {SHARE} is the least")
    if "seam" in figures and figures["seam"] > figures["interior"] + SEAM:
        found.append(f"seams: {figures['seam']:.2%} differ, elsewhere {figures['interior']:.2%}")
    return found


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--side", type=int, default=12000)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--folder", type=Path, help="where the files are drawn, and kept; else a folder of its own")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.bundle, given.folder, "cog" in given.one.name)))
        return 0
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("| case | file MB | windows | wall s | peak MB | windows/s | raw | share | seam | interior | |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for case in given.only or CASES:
            path = folder / f"{case}-{given.side}.tif"
            if not path.exists():
                draw(path, case, given.side)
            command = [sys.executable, "-m", "benchmarks.large_images", "--one", path, "--folder", scratch]
            done = subprocess.run([*command, "--bundle", given.bundle], check=True, capture_output=True, text=True)
            f = cases[case] = json.loads(done.stdout)
            apart = f"{f['seam']:.2%} | {f['interior']:.2%}" if "seam" in f else " | "
            speed = f"{f['windows_s']:.1f} | {f['raw_windows_s']:.1f} | {f['share']:.2f}"
            row = f"| {case} | {f['file_mb']:.0f} | {f['windows']} | {f['wall_s']:.1f} | {f['peak_mb']:.0f} | {speed}"
            print(f"{row} | {apart} | {'; '.join(over(f))} |", flush=True)
    if not given.no_keep:
        load.RESULTS.mkdir(exist_ok=True)
        results = load.RESULTS / "large-images.json"
        known = json.loads(results.read_text())["cases"] if given.only and results.exists() else {}
        what = {
            "what": "python -m benchmarks.large_images",
            "bundle": Bundle.load(given.bundle).ref,
            "side_px": given.side,
            "machine": machine.describe(),
            "versions": machine.versions(Path(sys.executable), ["numpy", "rasterio", "imagecodecs", "onnxruntime"]),
        }
        found = {**what, "bounds": BOUNDS, "cases": {**known, **cases}}
        results.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(over(figures) for figures in cases.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
