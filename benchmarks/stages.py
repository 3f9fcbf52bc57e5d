"""What a request costs the host beside the network, stage by stage, ours against the plain way.

    python -m benchmarks.stages [PHOTOS] [--rounds 30]

PHOTOS is a folder; without it streets are drawn. One thread; milliseconds of the processor a photo, median over
interleaved rounds and up to four photos, as JPEGs of quality 90. Scores are smooth random fields with a little noise:
regions as large as a trained network's. A stage's two answers are compared value by value.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from models import assign, palette, region_stats
from models.io import png
from models.io.decode import SUFFIXES, decode, load
from models.io.encode import encode
from models.native import bindings
from models.preprocess import InputSpec, fit, fitted_size, resize
from models.types import Array

K, PATCH, PHOTOS = 27, 16, 4
SIZES = ((320, 320), (768, 1024))
COLORS = palette.distinct(K)


class Stage(NamedTuple):
    """One step done twice: ours, and the plain way and its name; both give the array that is compared."""

    name: str
    plain_name: str
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    shown: Callable[[Any], Array] = np.asarray


class Case(NamedTuple):
    """A photo as it arrives, and what the network would say of it."""

    jpeg: bytes
    photo: Array
    scores: Array
    spec: InputSpec


def case(photo: Array, size: tuple[int, int]) -> Case:
    """The photo at a size (H, W), its scores float32 [K, H/16, W/16] (at 320 pixels: of 20 x 20 patches)."""
    photo = resize(photo, size)
    data = _pillow(photo, "JPEG", quality=90)
    spec = InputSpec(size=(320, 320), multiple=PATCH)
    height, width = fitted_size(size, spec)
    rng = np.random.default_rng(0)
    regions = rng.normal(size=(K, 7, 7)).astype(np.float32)
    strips = [strip for _, strip in assign.upsampled(regions, (height // PATCH, width // PATCH))]
    scores = np.concatenate(strips, axis=1)
    scores += 0.05 * rng.normal(size=scores.shape)
    return Case(data, photo, scores, spec)


def stages(of: Case) -> Iterator[Stage]:
    """Every step between a file's bytes and an answer's, the network aside."""
    size, scores = of.photo.shape[:2], of.scores
    labels = assign.labels(scores, size)
    blended = palette.overlay(of.photo, labels, COLORS)
    margin = assign.margin(scores, None, scores.shape[1:], assignment="dot")
    yield Stage("decode JPEG", "Pillow", lambda: decode(of.jpeg).image, lambda: _pillow_pixels(of.jpeg))
    if size != fitted_size(size, of.spec):
        wanted = fitted_size(size, of.spec)
        yield Stage("fit", "Pillow", lambda: fit(of.photo, of.spec).pixels, lambda: _pillow_resized(of.photo, wanted))
    yield Stage("labels", "numpy", lambda: assign.labels(scores, size), lambda: assign.plain_labels(scores, size))
    if (torch_labels := _torch_labels(scores, size)) is not None:
        yield Stage("labels", "torch", lambda: assign.labels(scores, size), torch_labels)
    yield Stage(
        "areas", "numpy", lambda: region_stats.compute(labels, K, margin), lambda: _plain_areas(labels, margin), _pixels
    )
    yield Stage(
        "label PNG", "Pillow", lambda: png.encode_palette(labels, COLORS), lambda: _pillow_labels(labels), _opened
    )
    yield Stage(
        "blend", "numpy", lambda: palette.overlay(of.photo, labels, COLORS), lambda: _numpy_blend(of.photo, labels)
    )
    yield Stage(
        "color PNG", "Pillow, RGB", lambda: png.encode_palette(labels, COLORS), lambda: _pillow_colors(labels), _shown
    )
    yield Stage(
        "overlay JPEG",
        "Pillow",
        lambda: encode(blended, "jpeg"),
        lambda: _pillow(blended, "JPEG", quality=90, subsampling=0),
        _opened,
    )
    yield Stage("JPEG → label PNG", "Pillow, numpy", lambda: _request(of), lambda: _plain_request(of), _opened)


def measured(cases: list[Case], rounds: int) -> dict[tuple[str, str], tuple[list[float], list[float], int, int]]:
    """By stage and plain way: milliseconds of ours and of the plain way; pixels that differ, pixels compared."""
    found: dict[tuple[str, str], tuple[list[float], list[float], int, int]] = {}
    every = [list(stages(one)) for one in cases]
    for steps in every:
        for step in steps:
            ours, plain = step.shown(step.ours()), step.shown(step.plain())
            before = found.get((step.name, step.plain_name), ([], [], 0, 0))
            differ = int((ours != plain).reshape(len(ours), -1).sum()) if ours.shape == plain.shape else ours.size
            found[step.name, step.plain_name] = (before[0], before[1], before[2] + differ, before[3] + ours.size)
    for _ in range(rounds):
        for steps in every:
            for step in steps:
                ours_ms, plain_ms, _, _ = found[step.name, step.plain_name]
                ours_ms.append(_ms(step.ours))
                plain_ms.append(_ms(step.plain))
    return found


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="?", type=Path, help="a folder; default: drawn streets")
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    photos = list(_photos(asked.photos))
    console = Console()
    console.print(
        f"kernels compiled: {'yes' if bindings.compiled() else 'no, plain numpy'}; {len(photos)} photos, K {K}"
    )
    for size in SIZES:
        table = Table(title=f"{size[1]}×{size[0]}, milliseconds of one thread")
        for column in ("stage", "ours", "plain way", "its ms", "ratio", "values that differ"):
            table.add_column(column, justify="left" if column in ("stage", "plain way") else "right")
        for (name, plain), (ours, theirs, differ, of) in measured(
            [case(photo, size) for photo in photos], asked.rounds
        ).items():
            mine, other = statistics.median(ours), statistics.median(theirs)
            table.add_row(name, f"{mine:.3f}", plain, f"{other:.3f}", f"{other / mine:.1f}", f"{differ} of {of}")
        console.print(table)


def _request(of: Case) -> bytes:
    """The whole of the host's work for one label map."""
    decoded = decode(of.jpeg).image
    fitted = fit(decoded, of.spec)
    return png.encode_palette(assign.labels(of.scores, fitted.source, fitted.box), COLORS)


def _plain_request(of: Case) -> bytes:
    decoded = _pillow_pixels(of.jpeg)
    size = (decoded.shape[0], decoded.shape[1])
    _pillow_resized(decoded, fitted_size(size, of.spec))
    return _pillow_labels(assign.plain_labels(of.scores, size))


def _photos(folder: Path | None) -> Iterator[Array]:
    if folder is None:
        from training.data import synthetic

        yield from (synthetic.street((768, 1024), seed) for seed in range(PHOTOS))
        return
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"{folder} has no photos: name another folder, or none for drawn streets")
    for path in found[:: max(1, len(found) // PHOTOS)][:PHOTOS]:
        yield load(path).image


def _ms(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


def _pillow(pixels: Array, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _pillow_pixels(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def _pillow_resized(pixels: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _pillow_labels(labels: Array) -> bytes:
    picture, buffer = Image.fromarray(labels), io.BytesIO()
    picture.putpalette(COLORS.tobytes())
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _pillow_colors(labels: Array) -> bytes:
    return _pillow(COLORS[labels], "PNG", compress_level=3)


def _numpy_blend(photo: Array, labels: Array) -> Array:
    blended = photo * np.uint16(128) + (COLORS.astype(np.uint16) * np.uint16(128) + np.uint16(128))[labels]
    return np.asarray(blended >> 8, np.uint8)


def _torch_labels(scores: Array, size: tuple[int, ...]) -> Callable[[], Array] | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    maps = torch.from_numpy(scores)[None]

    def labels() -> Array:
        full = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
        return np.asarray(full[0].argmax(0).to(torch.uint8).numpy())

    return labels


def _opened(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


def _shown(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def _plain_areas(labels: Array, margin: Array) -> list[region_stats.Area]:
    counted = region_stats.plain_count(labels, margin)
    found = []
    for i in np.argsort(-counted.pixels, kind="stable")[: np.count_nonzero(counted.pixels)]:
        x, y, width, height = (int(v) for v in counted.boxes[i])
        found.append(region_stats.Area(int(i), int(counted.pixels[i]), (x, y, width, height), float(counted.sums[i])))
    return found


def _pixels(found: list[region_stats.Area]) -> Array:
    return np.array([(area.id, area.pixels, *area.bbox) for area in found])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
