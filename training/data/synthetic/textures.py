"""Mosaics of surfaces: bricks, wood, cloth and more, each in several colors, at any scale and turned by any angle.

Knows nothing of networks. A piece's colors are drawn from those that its surface may have, and most colors belong to
several surfaces: what tells them apart is the pattern.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from models.types import Array
from training.data.synthetic.canvas import Drawn, Grain, cells, smooth, turned

CLASS_NAMES = ("bricks", "wood", "cloth", "pebbles", "sheet metal", "granite", "marble", "mesh")
_ODDS = (0.22, 0.18, 0.14, 0.14, 0.11, 0.09, 0.07, 0.05)  # how often a piece is one of them

# Dark and light end of a surface's colors.
_RED, _BROWN, _GRAY = ((92, 44, 34), (186, 112, 90)), ((84, 58, 36), (190, 148, 104)), ((70, 72, 74), (186, 188, 188))
_SAND, _BLUE, _GREEN = (
    ((128, 108, 78), (226, 208, 174)),
    ((38, 52, 82), (136, 156, 188)),
    ((44, 62, 46), (144, 164, 134)),
)
_WHITE, _BLACK = ((150, 148, 144), (240, 238, 232)), ((22, 22, 26), (108, 106, 110))
_COLORS = (
    (_RED, _SAND, _GRAY, _WHITE),
    (_BROWN, _SAND, _GRAY, _RED),
    (_BLUE, _RED, _GREEN, _WHITE, _BLACK),
    (_GRAY, _BROWN, _SAND, _BLACK),
    (_GRAY, _BLUE, _GREEN, _RED),
    (_GRAY, _RED, _BLACK, _SAND),
    (_WHITE, _GREEN, _BLACK, _SAND),
    (_BLACK, _GRAY, _BLUE, _WHITE),
)


def draw(size: tuple[int, int], seed: int) -> Drawn:
    """The mosaic of a seed. size: (H, W) in pixels."""
    height, width = size
    rng = np.random.default_rng(seed)
    pieces, count = _pieces(height, width, rng)
    surfaces = rng.choice(len(CLASS_NAMES), count, p=_ODDS)
    grain, pixels = Grain(rng), np.zeros((height, width, 3), np.float32)
    for piece, surface in enumerate(surfaces):
        at = pieces == piece
        u, v = turned(height, width, rng.uniform(0, 2 * np.pi), scale=rng.uniform(0.75, 1.45))
        shade = _SURFACES[surface](u[at], v[at], grain, rng).clip(0, 1)[:, None]
        colors = _COLORS[surface]
        dark, light = np.array(colors[rng.integers(len(colors))], np.float32) + rng.normal(0, 9, (1, 3))
        pixels[at] = dark + (light - dark) * shade
    lit = 1 + 0.16 * smooth(height, width, max(height, width), rng) + 0.05 * smooth(height, width, 40, rng)
    pixels *= (lit * rng.uniform(0.75, 1.2))[..., None] * rng.uniform(0.94, 1.06, 3)
    sharp = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
    noisy = np.asarray(sharp, np.float32) + rng.normal(0, 4, pixels.shape)
    return Drawn(noisy.clip(0, 255).astype(np.uint8), surfaces.astype(np.uint8)[pieces])


def _pieces(height: int, width: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Which of some pieces with bent edges every pixel is in, int [H, W], and how many there are."""
    count = int(rng.integers(4, 9))
    y, x = np.mgrid[:height, :width] + 7 * np.stack([smooth(height, width, 25, rng) for _ in range(2)])
    far = [np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) for _ in range(count)]
    return np.stack(far).argmin(axis=0), count


def _bricks(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    row = np.floor(v / 9)
    across, down = (u + 11 * (row % 2)) % 22, v % 9
    tone = grain(np.floor((u + 11 * (row % 2)) / 22) * 7.0, row * 5.0)
    joint = (across < 1.8) | (down < 1.8)
    mortar = rng.choice([0.05, 0.95])
    return np.where(joint, mortar, 0.5 + 0.13 * tone + 0.08 * grain(u / 2, v / 2))


def _wood(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    bent = v + 5 * grain(u / 60, v / 22)
    fine = grain(u / 24, v / 1.2)
    plank = grain(np.floor(u / 400), np.floor(v / 26) * 3.0)
    return np.where(v % 26 < 1.2, 0.0, 0.5 + 0.16 * np.sin(bent * 1.1) + 0.12 * fine + 0.1 * plank)


def _cloth(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    over = (np.floor(u / 4) + np.floor(v / 4)) % 2
    thread = np.where(over > 0, np.sin(np.pi * (u % 4) / 4), np.sin(np.pi * (v % 4) / 4))
    fold = grain(u / 50, v / 50)
    shade: Array = 0.25 + 0.42 * thread + 0.1 * over + 0.1 * fold + 0.06 * grain(u, v)
    return shade


def _pebbles(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    nearest, following, number = cells(u / 12, v / 12, rng)
    rounded = np.clip((following - nearest) * 2.6, 0, 1)
    shade: Array = rounded * (0.35 + 0.5 * number + 0.16 * (1 - nearest)) + 0.05 * grain(u / 2, v / 2)
    return shade


def _sheet_metal(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    wave = np.sin(2 * np.pi * v / 11)
    shade: Array = 0.5 + 0.36 * wave + 0.12 * grain(u / 40, v / 40) + 0.04 * grain(u, v)
    return shade


def _granite(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    speck, large = grain(u / 1.6, v / 1.6), grain(u / 4 + 50, v / 4)
    shade: Array = 0.5 + 0.2 * speck + 0.25 * (large > 1) - 0.35 * (large < -1)
    return shade


def _marble(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    turbulent = sum(np.abs(grain(u * f / 45, v * f / 45)) / f for f in (1, 2, 4))
    vein = 1 - np.abs(np.sin(u / 26 + 2.2 * turbulent))
    return 0.78 - 0.65 * vein**5 + 0.07 * grain(u / 30, v / 30)


def _mesh(u: Array, v: Array, grain: Grain, rng: np.random.Generator) -> Array:
    row = np.floor(v / 7)
    hole = np.hypot((u + 4 * (row % 2)) % 8 - 4, v % 7 - 3.5) < 2.4
    return np.where(hole, 0.02, 0.72 + 0.1 * grain(u / 20, v / 20))


_Surface = Callable[[Array, Array, Grain, np.random.Generator], Array]
"""Places (u, v) float32 [n] in pixels of a piece → how light each is, about 0..1."""

_SURFACES: tuple[_Surface, ...] = (_bricks, _wood, _cloth, _pebbles, _sheet_metal, _granite, _marble, _mesh)
