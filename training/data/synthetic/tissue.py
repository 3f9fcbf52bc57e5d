"""Tissue as a microscope shows it, stained with hematoxylin and eosin: position and direction mean nothing.

Knows nothing of networks. All classes are made of the same two stains: what tells them apart is how nuclei lie, how
fibers run and what is around them. Stains and light differ from picture to picture; one pixel is about a micrometer.

Source: light through two stains after Ruifrok & Johnston 2001, Quantification of histochemical staining.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.types import Array
from training.data.synthetic.canvas import Drawn, Grain, cells, smooth, turned

CLASS_NAMES = ("glass", "stroma", "gland", "lumen", "fat", "muscle", "lymphocytes")
_GLASS, _STROMA, _GLAND, _LUMEN, _FAT, _MUSCLE, _LYMPHOCYTES = range(len(CLASS_NAMES))
_HEMATOXYLIN, _EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)  # optical density in red, green and blue
_SPACING = 5.5  # pixels between nuclei where they are as close as they get
_SCALE = 3  # nuclei are drawn larger, then reduced
_CORNERS = np.linspace(0, 2 * np.pi, 10, endpoint=False)

# Of nuclei in a class: how many of the places hold one, length and width in pixels, how dark.
_NUCLEI = {
    _STROMA: (0.13, 4.2, 1.3, 0.9),
    _GLAND: (0.3, 2.9, 2.1, 0.8),
    _LUMEN: (0.01, 1.8, 1.6, 1.0),
    _FAT: (0.03, 2.6, 1.2, 1.0),
    _MUSCLE: (0.11, 4.6, 1.2, 0.85),
    _LYMPHOCYTES: (0.92, 2.1, 2.0, 1.15),
}
_RIM = 0.92  # of the places near a gland's outer edge, where its nuclei stand in line


class _Tissue(NamedTuple):
    """Class of every pixel, uint8 [H, W]; how far out it is in its gland, 0..1, and the direction outwards."""

    labels: Array
    out: Array
    outwards: Array


def draw(size: tuple[int, int], seed: int) -> Drawn:
    """The tissue of a seed. size: (H, W) in pixels."""
    height, width = size
    rng = np.random.default_rng(seed)
    tissue = _grown(height, width, rng)
    along = rng.uniform(0, np.pi) + 0.5 * smooth(height, width, 110, rng)  # where fibers run
    eosin, hematoxylin = _ground(tissue, along, rng)
    nuclei = _nuclei(tissue, along, rng)
    hematoxylin = hematoxylin * (1 - nuclei) + nuclei * (1 + 0.12 * smooth(height, width, 2, rng))
    eosin *= 1 - 0.6 * nuclei
    return Drawn(_seen(hematoxylin, eosin, rng), tissue.labels)


def _grown(height: int, width: int, rng: np.random.Generator) -> _Tissue:
    """Fields of stroma, fat, muscle and lymphocytes, glands in them, and glass beside them."""
    # Every picture has its own share of each, stroma the most of all.
    odds = [0.9, *(rng.normal((0.15, 0.2, -0.35), 0.6))]
    fields = np.stack([_patches(height, width, 75, rng) + odd for odd in odds])
    labels = np.array([_STROMA, _FAT, _MUSCLE, _LYMPHOCYTES], np.uint8)[fields.argmax(axis=0)]
    out, outwards = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    ragged = smooth(height, width, 14, rng)
    for _ in range(rng.poisson(height * width / 9000 * rng.uniform(0.3, 1.6))):
        radius = rng.uniform(15, 38)
        long, hollow, angle = rng.uniform(1, 1.8), rng.uniform(0.3, 0.68), rng.uniform(0, np.pi)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        reach = int(1.4 * long * radius)
        rows = slice(max(0, int(y) - reach), min(height, int(y) + reach))
        columns = slice(max(0, int(x) - reach), min(width, int(x) + reach))
        down, across = np.mgrid[rows, columns].astype(np.float32)
        down, across = down - y, across - x
        u, v = across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)
        far = np.hypot(u / long, v) / radius + 0.09 * ragged[rows, columns]
        inside = (far < 1) & (labels[rows, columns] != _FAT)
        labels[rows, columns][inside] = np.where(far < hollow, _LUMEN, _GLAND)[inside]
        out[rows, columns][inside] = np.clip((far - hollow) / (1 - hollow), 0, 1)[inside]
        outwards[rows, columns][inside] = np.arctan2(down, across)[inside]
    edge = _patches(height, width, 130, rng) + 0.06 * smooth(height, width, 9, rng)
    labels[edge > rng.uniform(0.7, 2.5)] = _GLASS
    return _Tissue(labels, out, outwards)


def _patches(height: int, width: int, cell: int, rng: np.random.Generator) -> Array:
    """Smooth noise whose grid begins anywhere and whose outlines are uneven."""
    top, left = rng.integers(0, cell, 2)
    large = smooth(height + cell, width + cell, cell, rng)[top : top + height, left : left + width]
    found: Array = large + 0.3 * smooth(height, width, cell / 3.3, rng)
    return found


def _ground(tissue: _Tissue, along: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """What lies between nuclei: eosin and hematoxylin, float32 [H, W] each."""
    labels, grain = tissue.labels, Grain(rng)
    height, width = labels.shape
    eosin, hematoxylin = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    direction = float(along.mean())
    u, v = turned(height, width, direction)
    bent = 9 * smooth(height, width, 45, rng)  # fibers of stroma are wavy, those of muscle hardly
    cloud = smooth(height, width, 30, rng)

    at = labels == _STROMA
    fibers = grain(u[at] / 11, (v + bent)[at] / 2.4) + 0.6 * grain(u[at] / 5, (v + bent)[at] / 1.3)
    eosin[at] = 0.36 + 0.13 * fibers + 0.07 * cloud[at]
    at = labels == _MUSCLE
    bundles, fine = grain(u[at] / 60, (v + 0.2 * bent)[at] / 9), grain(u[at] / 22, (v + 0.2 * bent)[at] / 1.6)
    eosin[at] = 0.44 + 0.07 * fine - 0.35 * (bundles > 1.35) + 0.05 * cloud[at]
    at = labels == _GLAND
    eosin[at] = 0.36 + 0.05 * grain(u[at] / 2, v[at] / 2) + 0.04 * cloud[at]
    hematoxylin[at] = 0.16 + 0.04 * cloud[at]
    at = labels == _LYMPHOCYTES
    eosin[at], hematoxylin[at] = 0.2 + 0.05 * cloud[at], 0.14
    at = labels == _LUMEN
    filled = rng.uniform(0, 0.3) * np.clip(0.6 + cloud[at], 0, 2)  # with nothing, or with mucus
    hematoxylin[at] = filled * (0.5 + 0.5 * np.abs(grain(u[at] / 9, v[at] / 4)))
    eosin[at] = rng.choice([0.1, 0.9]) * filled
    at = labels == _FAT
    wide = rng.uniform(17, 24)
    nearest, following, _ = cells((u[at] + 0.3 * bent[at]) / wide, v[at] / wide, rng)
    eosin[at] = 0.5 * np.exp(-(((following - nearest) * wide / 2.2) ** 2))
    return eosin.clip(0), hematoxylin.clip(0)


def _nuclei(tissue: _Tissue, along: Array, rng: np.random.Generator) -> Array:
    """How much of a nucleus is at every pixel: float32 [H, W], 0..1 and over."""
    height, width = tissue.labels.shape
    sheet = Image.new("L", (width * _SCALE, height * _SCALE))
    pen = ImageDraw.Draw(sheet)
    y, x = (one.ravel() for one in np.mgrid[0:height:_SPACING, 0:width:_SPACING])
    y, x = (one + rng.uniform(-0.36, 0.36, len(one)) * _SPACING for one in (y, x))
    at = (y.round().astype(int).clip(0, height - 1), x.round().astype(int).clip(0, width - 1))
    kind, chance = tissue.labels[at], rng.uniform(size=len(y))
    turn, size, dark = rng.normal(0, 0.2, len(y)), rng.uniform(0.8, 1.2, len(y)), rng.uniform(0.75, 1, len(y))
    for label, (share, long, wide, darkness) in _NUCLEI.items():
        wanted, angle = np.full(len(y), share), along[at]
        if label == _GLAND:
            wanted = np.where((tissue.out[at] > 0.45) & (tissue.out[at] < 0.95), _RIM, 0.1)
            angle = tissue.outwards[at]
        if label in (_LYMPHOCYTES, _LUMEN, _FAT):
            angle = 9 * turn
        for i in np.flatnonzero((kind == label) & (chance < wanted)):
            cosine, sine = np.cos(angle[i] + turn[i]), np.sin(angle[i] + turn[i])
            u, v = long * size[i] * np.cos(_CORNERS), wide * size[i] * np.sin(_CORNERS)
            corners = np.stack([x[i] + u * cosine - v * sine, y[i] + u * sine + v * cosine], axis=1) * _SCALE
            pen.polygon(corners.ravel().tolist(), fill=int(210 * darkness * dark[i]))
    return np.asarray(sheet.reduce(_SCALE), np.float32) / 210


def _seen(hematoxylin: Array, eosin: Array, rng: np.random.Generator) -> Array:
    """Light that comes through both stains: RGB uint8 [H, W, 3]."""
    strengths = rng.uniform((0.75, 0.6), (1.35, 1.5))
    stains = np.stack([_HEMATOXYLIN, _EOSIN]) + rng.normal(0, (0.05, 0.03, 0.05), (2, 3))
    density = np.stack([hematoxylin, eosin], axis=-1) @ (stains.clip(0.02) * strengths[:, None]).astype(np.float32)
    lamp = rng.uniform(226, 250) * rng.uniform(0.97, 1.0, 3)
    sharp = Image.fromarray((lamp * np.exp(-density)).clip(0, 255).astype(np.uint8))
    pixels: Array = np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9))), np.float32)
    pixels = pixels + rng.normal(0, 3, pixels.shape)
    seen: Array = pixels.clip(0, 255).astype(np.uint8)
    return seen
