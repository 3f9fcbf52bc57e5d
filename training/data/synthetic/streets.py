"""Streets in perspective under a cloudy sky: road, pavements, houses, trees, cars.

Knows nothing of networks. The golden image of a bundle trained on private or unredistributable photos,
and the README's picture, are drawn here.
"""

import numpy as np
from PIL import Image, ImageFilter

from models.types import Array
from training.data.synthetic.canvas import Canvas, Color, Drawn, Point, smooth

CLASS_NAMES = ("sky", "building", "road", "pavement", "tree", "car")
_SKY, _BUILDING, _ROAD, _PAVEMENT, _TREE, _CAR = range(len(CLASS_NAMES))
_SCALE = 2  # drawn larger, then reduced: soft edges


def draw(size: tuple[int, int], seed: int) -> Drawn:
    """The street of a seed. size: (H, W) in pixels."""
    height, width = size[0] * _SCALE, size[1] * _SCALE
    rng = np.random.default_rng(seed)
    canvas = Canvas(Image.fromarray(_sky(height, width, rng)), _SKY)
    scene = _Scene(canvas, rng)
    for side in (-1, 1):
        scene.houses(side)
    scene.ground()
    for side in (-1, 1):
        for distance in (0.3, 0.55):
            scene.tree(side, distance)
    scene.car(1, 0.5, (132, 30, 34))
    scene.car(-1, 0.42, (52, 66, 92))
    scene.car(1, 0.25, (170, 172, 176))
    pixels = np.asarray(canvas.picture.filter(ImageFilter.GaussianBlur(1.2)), np.float32)
    rough = np.clip((235 - pixels.max(axis=2, keepdims=True)) / 60, 0.1, 1)  # a bright sky has no grain
    pixels = pixels + rough * (
        7 * smooth(height, width, 3, rng)[..., None] + 5 * smooth(height, width, 24, rng)[..., None]
    )
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return Drawn(np.asarray(drawn.resize((size[1], size[0]), Image.Resampling.BOX)), canvas.reduced(size))


def _sky(height: int, width: int, rng: np.random.Generator) -> Array:
    down = np.linspace(0, 1, height)[:, None, None]
    blue = np.array([186, 208, 236]) * (1 - down) + np.array([240, 243, 247]) * down
    clouds = np.clip(smooth(height, width, 120, rng)[..., None], 0, 2)
    sky: Array = np.clip(blue + 14 * clouds, 0, 255).astype(np.uint8)
    return sky


class _Scene:
    """What stands in the street, drawn from the back to the front; `side` is −1 on the left and 1 on the right."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.draw, self.rng = canvas, rng
        self.width, self.height = canvas.picture.size
        self.vanishing = (0.5 * self.width, 0.47 * self.height)

    def towards(self, x: float, y: float, distance: float) -> Point:
        """The point `distance` (0 here .. 1 infinitely far) of the way from (x, y) to the vanishing point."""
        return x + (self.vanishing[0] - x) * distance, y + (self.vanishing[1] - y) * distance

    def houses(self, side: int) -> None:
        edge, bottom = self.width * (0.5 + side * 0.75), self.height * 1.02
        walls: list[Color] = [(150, 112, 92), (178, 160, 134), (128, 122, 120), (166, 132, 104)]
        fronts = np.linspace(0.05, 0.82, 5)
        for index in reversed(range(4)):
            near, far = float(fronts[index]), float(fronts[index + 1])
            top = self.height * self.rng.uniform(-0.35, -0.05)
            self._front(edge, (top, bottom), (near, far), walls[(index + (side > 0)) % len(walls)])
            for storey in np.linspace(0.12, 0.72, 4):
                for u in np.linspace(0.12, 0.88, 5):
                    across = near + (far - near) * (u - 0.05), near + (far - near) * (u + 0.05)
                    y0 = top + (bottom - top) * storey
                    self._front(edge, (y0, y0 + (bottom - top) * 0.12), across, (58, 66, 76))

    def _front(self, x: float, down: Point, across: Point, color: Color) -> None:
        """A rectangle of the wall at x, from one height and distance to another."""
        corners = ((down[0], across[0]), (down[0], across[1]), (down[1], across[1]), (down[1], across[0]))
        self.draw.polygon([self.towards(x, y, distance) for y, distance in corners], color, _BUILDING)

    def ground(self) -> None:
        width, height = self.width, self.height
        curb, asphalt = (196, 192, 186), (92, 92, 96)
        for left, color, label in (
            (-0.45, (158, 150, 142), _PAVEMENT),
            (-0.05, curb, _PAVEMENT),
            (-0.02, asphalt, _ROAD),
        ):
            self.draw.polygon([self.vanishing, (left * width, height), ((1 - left) * width, height)], color, label)
        for start in (0.0, 0.3, 0.52, 0.68, 0.8):
            stop = start + 0.55 * (1 - start) * 0.35
            x0, x1 = 0.492 * width, 0.508 * width
            dash = [self.towards(x, height, d) for x, d in ((x0, start), (x1, start), (x1, stop), (x0, stop))]
            self.draw.polygon(dash, (214, 212, 204), _ROAD)

    def tree(self, side: int, distance: float) -> None:
        x, foot = self.towards(self.width * (0.5 + side * 0.72), self.height, distance)
        tall = self.height * 0.95 * (1 - distance)
        self.draw.rectangle([x - tall * 0.025, foot - tall * 0.55, x + tall * 0.025, foot], (72, 58, 46), _TREE)
        for _ in range(260):
            angle, reach = self.rng.uniform(0, 2 * np.pi), np.sqrt(self.rng.uniform(0, 1))
            cx, cy = x + tall * 0.3 * reach * np.cos(angle), foot - tall * 0.78 + tall * 0.3 * reach * np.sin(angle)
            r = tall * self.rng.uniform(0.02, 0.06)
            light = self.rng.uniform(0.6, 1.15)
            green = (int(58 * light), int(86 * light), int(44 * light))
            self.draw.ellipse([cx - r, cy - r, cx + r, cy + r], green, _TREE)

    def car(self, side: int, distance: float, color: Color) -> None:
        x, foot = self.towards(self.width * (0.5 + side * 0.42), self.height, distance)
        wide = self.width * 0.3 * (1 - distance)
        tall = 0.72 * wide

        def box(left: float, top: float, right: float, bottom: float) -> list[float]:
            return [x + wide * left, foot - tall * top, x + wide * right, foot - tall * bottom]

        def shape(*corners: Point) -> list[Point]:
            return [(x + wide * u, foot - tall * v) for u, v in corners]

        self.draw.ellipse(box(-0.52, 0.12, 0.52, -0.06), (48, 48, 50), _ROAD)  # its shadow
        for wheel in (-0.36, 0.36):
            self.draw.rectangle(box(wheel - 0.09, 0.3, wheel + 0.09, -0.02), (28, 28, 30), _CAR, wide * 0.03)
        self.draw.rectangle(box(-0.5, 0.62, 0.5, 0.14), color, _CAR, wide * 0.08)
        self.draw.polygon(shape((-0.4, 0.6), (-0.3, 1.0), (0.3, 1.0), (0.4, 0.6)), color, _CAR)
        self.draw.polygon(shape((-0.33, 0.63), (-0.26, 0.94), (0.26, 0.94), (0.33, 0.63)), (66, 78, 88), _CAR)
        for lamp in (-0.42, 0.42):
            self.draw.ellipse(box(lamp - 0.06, 0.5, lamp + 0.06, 0.38), (196, 60, 48), _CAR)
