"""A street drawn by a program: what a bundle shows where no photo may be shown.

Knows nothing of networks. The golden image of a bundle trained on private or unredistributable photos,
and the README's picture, are drawn here; the same seed draws the same street.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.types import Array

Color = tuple[int, int, int]
_SCALE = 2  # drawn larger, then reduced: soft edges


def street(size: tuple[int, int] = (360, 480), seed: int = 0) -> Array:
    """A street in perspective under a cloudy sky: road, pavements, houses, trees, cars.

    size     (H, W) in pixels
    returns  RGB uint8 [H, W, 3]
    """
    height, width = size[0] * _SCALE, size[1] * _SCALE
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(_sky(height, width, rng))
    draw = ImageDraw.Draw(picture)
    vanishing = (0.5 * width, 0.47 * height)
    for side in (-1, 1):
        _houses(draw, side, vanishing, (height, width), rng)
    _ground(draw, vanishing, (height, width))
    for side in (-1, 1):
        for distance in (0.3, 0.55):
            _tree(draw, side, distance, vanishing, (height, width), rng)
    for side, distance, paint in ((1, 0.5, (132, 30, 34)), (-1, 0.42, (52, 66, 92)), (1, 0.25, (170, 172, 176))):
        _car(draw, side, distance, vanishing, (height, width), paint)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)), np.float32)
    rough = np.clip((235 - pixels.max(axis=2, keepdims=True)) / 60, 0.1, 1)  # a bright sky has no grain
    pixels = pixels + rough * (7 * _noise(height, width, 3, rng) + 5 * _noise(height, width, 24, rng))
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return np.asarray(drawn.resize((size[1], size[0]), Image.Resampling.BOX))


def _noise(height: int, width: int, cell: int, rng: np.random.Generator) -> Array:
    """Smooth noise [H, W, 1] of unit spread and the given cell size in pixels."""
    coarse = rng.normal(size=(height // cell + 2, width // cell + 2)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)[..., None]


def _sky(height: int, width: int, rng: np.random.Generator) -> Array:
    down = np.linspace(0, 1, height)[:, None, None]
    blue = np.array([186, 208, 236]) * (1 - down) + np.array([240, 243, 247]) * down
    clouds = np.clip(_noise(height, width, 120, rng), 0, 2)
    sky: Array = np.clip(blue + 14 * clouds, 0, 255).astype(np.uint8)
    return sky


def _towards(near: tuple[float, float], vanishing: tuple[float, float], distance: float) -> tuple[float, float]:
    """The point `distance` (0 here .. 1 infinitely far) of the way from `near` to the vanishing point."""
    return near[0] + (vanishing[0] - near[0]) * distance, near[1] + (vanishing[1] - near[1]) * distance


def _houses(
    draw: ImageDraw.ImageDraw,
    side: int,
    vanishing: tuple[float, float],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    height, width = size
    edge = width * (0.5 + side * 0.75)
    walls: list[Color] = [(150, 112, 92), (178, 160, 134), (128, 122, 120), (166, 132, 104)]
    fronts = np.linspace(0.05, 0.82, 5)
    for index in reversed(range(4)):
        near, far = float(fronts[index]), float(fronts[index + 1])
        top = height * rng.uniform(-0.35, -0.05)
        wall = walls[(index + (side > 0)) % len(walls)]
        corners = [
            _towards((edge, y), vanishing, d)
            for y, d in ((top, near), (top, far), (height * 1.02, far), (height * 1.02, near))
        ]
        draw.polygon(corners, fill=wall)
        for storey in np.linspace(0.12, 0.72, 4):
            for u in np.linspace(0.12, 0.88, 5):
                start, stop = near + (far - near) * (u - 0.05), near + (far - near) * (u + 0.05)
                y0 = top + (height * 1.02 - top) * storey
                y1 = y0 + (height * 1.02 - top) * 0.12
                pane = [
                    _towards((edge, y), vanishing, d) for y, d in ((y0, start), (y0, stop), (y1, stop), (y1, start))
                ]
                draw.polygon(pane, fill=(58, 66, 76))


def _ground(draw: ImageDraw.ImageDraw, vanishing: tuple[float, float], size: tuple[int, int]) -> None:
    height, width = size
    draw.polygon([vanishing, (-0.45 * width, height), (1.45 * width, height)], fill=(158, 150, 142))
    draw.polygon([vanishing, (-0.05 * width, height), (1.05 * width, height)], fill=(196, 192, 186))  # curbs
    draw.polygon([vanishing, (-0.02 * width, height), (1.02 * width, height)], fill=(92, 92, 96))
    for start in (0.0, 0.3, 0.52, 0.68, 0.8):
        stop = start + 0.55 * (1 - start) * 0.35
        x0, x1 = 0.492 * width, 0.508 * width
        dash = [_towards((x, height), vanishing, d) for x, d in ((x0, start), (x1, start), (x1, stop), (x0, stop))]
        draw.polygon(dash, fill=(214, 212, 204))


def _tree(
    draw: ImageDraw.ImageDraw,
    side: int,
    distance: float,
    vanishing: tuple[float, float],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    height, width = size
    x, foot = _towards((width * (0.5 + side * 0.72), height), vanishing, distance)
    tall = height * 0.95 * (1 - distance)
    draw.rectangle([x - tall * 0.025, foot - tall * 0.55, x + tall * 0.025, foot], fill=(72, 58, 46))
    for _ in range(260):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        cx, cy = x + tall * 0.3 * reach * np.cos(angle), foot - tall * 0.78 + tall * 0.3 * reach * np.sin(angle)
        r = tall * rng.uniform(0.02, 0.06)
        light = rng.uniform(0.6, 1.15)
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=(int(58 * light), int(86 * light), int(44 * light)))


def _car(
    draw: ImageDraw.ImageDraw,
    side: int,
    distance: float,
    vanishing: tuple[float, float],
    size: tuple[int, int],
    paint: Color,
) -> None:
    height, width = size
    x, foot = _towards((width * (0.5 + side * 0.42), height), vanishing, distance)
    wide = width * 0.3 * (1 - distance)
    tall = 0.72 * wide
    draw.ellipse([x - wide * 0.52, foot - tall * 0.12, x + wide * 0.52, foot + tall * 0.06], fill=(48, 48, 50))
    for wheel in (-0.36, 0.36):
        left, right = x + wide * (wheel - 0.09), x + wide * (wheel + 0.09)
        draw.rounded_rectangle([left, foot - tall * 0.3, right, foot + tall * 0.02], wide * 0.03, fill=(28, 28, 30))
    draw.rounded_rectangle(
        [x - wide / 2, foot - tall * 0.62, x + wide / 2, foot - tall * 0.14], wide * 0.08, fill=paint
    )
    roof = [(x + wide * u, foot - tall * v) for u, v in ((-0.4, 0.6), (-0.3, 1.0), (0.3, 1.0), (0.4, 0.6))]
    draw.polygon(roof, fill=paint)
    glass = [(x + wide * u, foot - tall * v) for u, v in ((-0.33, 0.63), (-0.26, 0.94), (0.26, 0.94), (0.33, 0.63))]
    draw.polygon(glass, fill=(66, 78, 88))
    for lamp in (-0.42, 0.42):
        draw.ellipse(
            [x + wide * (lamp - 0.06), foot - tall * 0.5, x + wide * (lamp + 0.06), foot - tall * 0.38],
            fill=(196, 60, 48),
        )


def main() -> None:
    """python -m training.data.synthetic FOLDER [COUNT]: a folder of drawn streets to try the training on."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        Image.fromarray(street((240, 320), seed)).save(folder / f"{seed:03d}.jpg", quality=92)


if __name__ == "__main__":
    main()
