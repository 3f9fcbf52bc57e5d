"""Land from above: fields, grass, trees, roofs, roads, water and cars, under any sun and turned by any angle.

Knows nothing of networks. Each class has several colors, and most greens, browns and grays belong to several classes;
fields are a third of what there is, cars a hundredth. One pixel is about half a meter.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.types import Array
from training.data.synthetic.canvas import Canvas, Color, Drawn, Grain, Point, smooth, turned

CLASS_NAMES = ("field", "grass", "trees", "roof", "road", "water", "car")
_FIELD, _GRASS, _TREES, _ROOF, _ROAD, _WATER, _CAR = range(len(CLASS_NAMES))
_SCALE = 2  # drawn larger, then reduced: soft edges
_SHADE = 0.5  # of the light that is missing in a shadow

# Soil, young crops, ripe ones, stubble, and dark crops whose rows are hardly seen.
_CROPS: tuple[Color, ...] = ((122, 96, 74), (112, 128, 72), (188, 168, 104), (170, 150, 118), (72, 100, 56))
_LAWNS: tuple[Color, ...] = ((104, 132, 70), (128, 138, 84), (150, 144, 98), (84, 116, 62))
_CROWNS: tuple[Color, ...] = ((46, 72, 40), (62, 88, 46), (74, 92, 60), (108, 92, 48))
_TILES: tuple[Color, ...] = (
    (160, 86, 66),
    (116, 74, 60),
    (126, 126, 128),
    (76, 80, 86),
    (196, 192, 186),
    (168, 148, 122),
)
_PAVING: tuple[Color, ...] = ((118, 118, 120), (148, 144, 138), (96, 96, 100), (166, 148, 122))
_WATERS: tuple[Color, ...] = ((44, 62, 74), (58, 78, 66), (84, 86, 70), (66, 94, 116))
_PAINT: tuple[Color, ...] = ((224, 224, 226), (40, 42, 46), (150, 32, 34), (44, 66, 120), (146, 148, 152))
_GRAININESS = {_FIELD: 0.035, _GRASS: 0.05, _TREES: 0.12, _ROOF: 0.03, _ROAD: 0.03, _WATER: 0.012, _CAR: 0.0}


def draw(size: tuple[int, int], seed: int) -> Drawn:
    """The land of a seed. size: (H, W) in pixels."""
    rng = np.random.default_rng(seed)
    land = _Land(size, rng)
    reach = 0.62 * float(np.hypot(*size))  # from the middle, whatever the angle
    land.divide((-reach, -reach), (reach, reach))
    if rng.uniform() < 0.55:
        land.water(reach)
    return Drawn(_lit(land, size, rng), land.canvas.reduced(size))


class _Land:
    """What lies on the ground, drawn from below upwards in places (x, y) in pixels from the picture's middle.

    parcels  which field a pixel is of, from 1
    shadows  255 where the sun does not come
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.rng, self.middle = rng, (size[1] / 2, size[0] / 2)
        self.angle, sun = rng.uniform(0, 2 * np.pi, 2)
        self.sun = np.array([np.cos(sun), np.sin(sun)]) * rng.uniform(0.5, 1.6)  # a shadow's length, of a height of one
        large = (size[1] * _SCALE, size[0] * _SCALE)
        # Towns have a taste: most roofs of a picture are of few colors.
        self.tiles = [_TILES[i] for i in rng.choice(len(_TILES), rng.integers(2, 5), replace=False)]
        self.paving, self.lawn = _one(_PAVING, rng), _one(_LAWNS, rng)
        self.canvas = Canvas(Image.new("RGB", large, self.lawn), _GRASS)
        self.parcels, self.shadows = Image.new("L", large), Image.new("L", large)
        self._parcel, self._shadow = ImageDraw.Draw(self.parcels), ImageDraw.Draw(self.shadows)
        self.rows: list[float] = []  # distance between rows of each field

    def at(self, x: float, y: float) -> Point:
        """Where a place is on the canvas."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return (
            float(self.middle[0] + x * cosine - y * sine) * _SCALE,
            float(self.middle[1] + x * sine + y * cosine) * _SCALE,
        )

    def box(self, low: Point, high: Point, turn: float = 0.0) -> list[Point]:
        """The corners of a box on the canvas, turned about its middle."""
        x, y, half = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2)
        corners = [(-half[0], -half[1]), (half[0], -half[1]), (half[0], half[1]), (-half[0], half[1])]
        cosine, sine = np.cos(turn), np.sin(turn)
        return [self.at(x + u * cosine - v * sine, y + u * sine + v * cosine) for u, v in corners]

    def divide(self, low: Point, high: Point, depth: int = 0) -> None:
        """Land between two corners: cut in two by a road or a hedge, or used as one."""
        wide, tall = high[0] - low[0], high[1] - low[1]
        if max(wide, tall) < 90 or (depth > 2 and max(wide, tall) < 230 and self.rng.uniform() < 0.3):
            self.use(low, high)
            return
        share, across = self.rng.uniform(0.32, 0.68), wide > tall
        cut = low[0] + wide * share if across else low[1] + tall * share
        gap = self.rng.choice([5.0, 3.5, 1.0, 0.0]) if depth < 4 else 1.0
        self.divide(low, (cut - gap, high[1]) if across else (high[0], cut - gap), depth + 1)
        self.divide((cut + gap, low[1]) if across else (low[0], cut + gap), high, depth + 1)
        strip = ((cut - gap, low[1]), (cut + gap, high[1])) if across else ((low[0], cut - gap), (high[0], cut + gap))
        if gap > 2:
            self.road(*strip)
        elif gap:
            self.hedge(*strip)

    def use(self, low: Point, high: Point) -> None:
        """One use for the land between two corners."""
        how = self.rng.choice(["field", "houses", "wood", "meadow", "yard"], p=[0.38, 0.3, 0.12, 0.12, 0.08])
        if how == "field":
            self.field(low, high)
        elif how == "houses":
            self.houses(low, high)
        elif how == "yard":
            self.yard(low, high)
        else:
            ground = (
                (_times(_one(_CROWNS, self.rng), 0.6), _TREES) if how == "wood" else (_one(_LAWNS, self.rng), _GRASS)
            )
            self.canvas.polygon(self.box(low, high), _near(ground[0], self.rng), ground[1])
            area = (high[0] - low[0]) * (high[1] - low[1])
            self.trees(low, high, int(area / (45 if how == "wood" else 1500)))

    def field(self, low: Point, high: Point) -> None:
        """Crops in rows; how far the rows are apart is kept for `_lit`."""
        corners = self.box(low, high)
        self.canvas.polygon(corners, _near(_one(_CROPS, self.rng), self.rng), _FIELD)
        self.rows.append(float(self.rng.uniform(3.5, 7)))
        self._parcel.polygon(corners, fill=min(len(self.rows), 255))

    def road(self, low: Point, high: Point) -> None:
        """Paving, a dashed line where it is wide, cars."""
        self.canvas.polygon(self.box(low, high), _near(self.paving, self.rng, 6), _ROAD)
        along = 0 if high[0] - low[0] > high[1] - low[1] else 1
        length, wide = high[along] - low[along], high[1 - along] - low[1 - along]
        for _ in range(self.rng.poisson(length / 55)):
            place, side = self.rng.uniform(0, length), self.rng.choice([0.28, 0.72]) * wide
            where = (low[0] + place, low[1] + side) if along == 0 else (low[0] + side, low[1] + place)
            self.car(where, along * np.pi / 2)

    def hedge(self, low: Point, high: Point) -> None:
        """A line of trees."""
        self.trees(low, high, int(max(high[0] - low[0], high[1] - low[1]) / 9))

    def yard(self, low: Point, high: Point) -> None:
        """Paving with a hall and parked cars on it."""
        self.canvas.polygon(self.box(low, high), _near(_one(_PAVING, self.rng), self.rng), _ROAD)
        wide, tall = high[0] - low[0], high[1] - low[1]
        self.roof(
            (low[0] + 0.12 * wide, low[1] + 0.3 * tall), (high[0] - 0.12 * wide, high[1] - 0.1 * tall), 0, flat=True
        )
        for x in np.arange(low[0] + 6, high[0] - 6, 5.5):
            if self.rng.uniform() < 0.5:
                self.car((float(x), low[1] + 0.14 * tall), np.pi / 2)

    def houses(self, low: Point, high: Point) -> None:
        """Lots with a house, a drive, perhaps a car, and trees on the grass."""
        self.canvas.polygon(self.box(low, high), _near(self.lawn, self.rng), _GRASS)
        lot = self.rng.uniform(30, 46)
        for x in np.arange(low[0] + 4, high[0] - lot * 0.7, lot):
            for y in np.arange(low[1] + 4, high[1] - lot * 0.7, lot):
                if self.rng.uniform() < 0.12:
                    continue
                wide, deep = self.rng.uniform(0.42, 0.68, 2) * lot
                left, top = x + self.rng.uniform(0, 0.2) * lot, y + self.rng.uniform(0, 0.25) * lot
                if self.rng.uniform() < 0.7:
                    drive = ((left + wide, top + 0.2 * deep), (left + wide + 5, top + deep + 6))
                    self.canvas.polygon(self.box(*drive), _near(self.paving, self.rng), _ROAD)
                    if self.rng.uniform() < 0.55:
                        self.car((left + wide + 2.5, top + 0.7 * deep), np.pi / 2)
                self.roof((left, top), (left + wide, top + deep), self.rng.normal(0, 0.06), flat=False)
        area = (high[0] - low[0]) * (high[1] - low[1])
        self.trees(low, high, self.rng.poisson(area / 700))

    def roof(self, low: Point, high: Point, turn: float, flat: bool) -> None:
        """A gable of which one side has more sun, or a flat roof with boxes on it; and its shadow."""
        corners = self.box(low, high, turn)
        shift = self.sun * (9 if flat else 5) * _SCALE
        for step in (0.5, 1.0):
            self._shadow.polygon([(x + step * shift[0], y + step * shift[1]) for x, y in corners], fill=255)
        color = _near(self.tiles[self.rng.integers(len(self.tiles))], self.rng)
        self.canvas.polygon(corners, color, _ROOF)
        self._shadow.polygon(corners, fill=0)
        if flat:
            for _ in range(self.rng.poisson(5)):
                x, y = self.rng.uniform(low, high)
                if low[0] < x < high[0] - 4 and low[1] < y < high[1] - 4:
                    self.canvas.polygon(self.box((x, y), (x + 3, y + 3), turn), _near(color, self.rng, 40), _ROOF)
            return
        first, second, third, fourth = corners
        if high[0] - low[0] < high[1] - low[1]:
            first, second, third, fourth = second, third, fourth, first
        ridge = [_between(first, fourth), _between(second, third)]
        bright = 1 + 0.22 * float(np.sign(self.rng.uniform(-1, 1)))
        side = _times(color, bright)
        self.canvas.polygon([first, second, ridge[1], ridge[0]], side, _ROOF)

    def trees(self, low: Point, high: Point, count: int) -> None:
        """So many crowns between two corners, with their shadows."""
        kind = _one(_CROWNS, self.rng)
        for x, y in self.rng.uniform(low, high, (count, 2)):
            radius = float(self.rng.uniform(2.6, 6.2)) * _SCALE
            across, down = self.at(x, y)
            shadow = across + self.sun[0] * radius * 0.8, down + self.sun[1] * radius * 0.8
            self._shadow.ellipse(_about(shadow, radius), fill=255)
            color = _near(kind, self.rng, 8)
            self.canvas.ellipse(_about((across, down), radius), color, _TREES)
            self._shadow.ellipse(_about((across, down), radius), fill=0)
            for _ in range(3):  # leaves in the sun
                angle, far = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.1, 0.6) * radius
                at = across + far * np.cos(angle) - self.sun[0] * radius * 0.2, down + far * np.sin(angle)
                light = _times(color, self.rng.uniform(0.8, 1.4))
                self.canvas.ellipse(_about(at, radius * 0.35), light, _TREES)

    def car(self, where: Point, turn: float) -> None:
        """A car's roof and windows from above; where: its middle."""
        x, y = where
        color = _one(_PAINT, self.rng)
        self.canvas.polygon(self.box((x - 4.2, y - 1.8), (x + 4.2, y + 1.8), turn), color, _CAR)
        self.canvas.polygon(self.box((x - 1.9, y - 1.5), (x + 2.5, y + 1.5), turn), (40, 46, 54), _CAR)
        self.canvas.polygon(self.box((x - 1.0, y - 1.5), (x + 1.6, y + 1.5), turn), color, _CAR)

    def water(self, reach: float) -> None:
        """A river from one side to the other, or a lake, on top of whatever is there."""
        color = _near(_one(_WATERS, self.rng), self.rng)
        if self.rng.uniform() < 0.5:
            along = np.linspace(-reach, reach, 24)
            bends = self.rng.uniform(10, 40) * np.sin(along / self.rng.uniform(35, 80) + self.rng.uniform(0, 6))
            middle, wide = self.rng.uniform(-0.4, 0.4) * reach, self.rng.uniform(9, 26)
            banks = [(x, middle + y - wide) for x, y in zip(along, bends, strict=True)]
            banks += [(x, middle + y + wide) for x, y in zip(along[::-1], bends[::-1], strict=True)]
        else:
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            uneven = 1 + 0.16 * np.sin(2 * angles + self.rng.uniform(0, 6)) + 0.1 * np.sin(5 * angles)
            radius, (x, y) = self.rng.uniform(30, 85), self.rng.uniform(-0.6, 0.6, 2) * reach
            banks = [
                (x + radius * r * np.cos(a), y + 0.7 * radius * r * np.sin(a))
                for a, r in zip(angles, uneven, strict=True)
            ]
        corners = [self.at(*place) for place in banks]
        self.canvas.polygon(corners, color, _WATER)
        self._shadow.polygon(corners, fill=0)


def _lit(land: _Land, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """The drawn colors with rows, grain, shadows and the light of the day: RGB uint8 [H, W, 3]."""
    height, width = size
    flat = land.canvas.picture.filter(ImageFilter.GaussianBlur(0.8)).reduce(_SCALE)
    pixels: Array = np.asarray(flat, np.float32)
    labels = land.canvas.reduced(size)
    parcels = np.asarray(land.parcels.resize((width, height), Image.Resampling.NEAREST))
    grain, light = Grain(rng), np.ones((height, width), np.float32)
    for i, apart in enumerate(land.rows[:255], 1):
        at = (parcels == i) & (labels == _FIELD)
        if not at.any():
            continue
        u, v = turned(height, width, land.angle + np.pi / 2 * rng.integers(2))
        rows = np.sin(2 * np.pi * v[at] / apart)
        light[at] += rng.uniform(0.05, 0.2) * rows + 0.06 * grain(u[at] / 30, v[at] / 5)
    strength = np.array([_GRAININESS[label] for label in range(len(CLASS_NAMES))], np.float32)[labels]
    light += strength * (smooth(height, width, 1.6, rng) + 1.2 * smooth(height, width, 11, rng))
    shadows = np.asarray(land.shadows.filter(ImageFilter.GaussianBlur(1)).reduce(_SCALE), np.float32) / 255
    light *= 1 - _SHADE * shadows * (labels != _WATER)
    light *= rng.uniform(0.7, 1.25) * (1 + 0.06 * smooth(height, width, max(size), rng))
    pixels = pixels * light[..., None] * rng.uniform((0.93, 0.97, 0.88), (1.1, 1.03, 1.08))
    haze = rng.uniform(0, 0.2)
    pixels = pixels * (1 - haze) + 190 * haze + rng.normal(0, 3, pixels.shape)
    seen: Array = pixels.clip(0, 255).astype(np.uint8)
    return seen


def _one(colors: tuple[Color, ...], rng: np.random.Generator) -> Color:
    return colors[int(rng.integers(len(colors)))]


def _near(color: Color, rng: np.random.Generator, spread: float = 9) -> Color:
    """A color like this one: as light or lighter, and of nearly the same hue."""
    return _shifted(color, rng.normal(0, spread) + rng.normal(0, spread / 4, 3))


def _shifted(color: Color, by: Array) -> Color:
    red, green, blue = (np.array(color) + by).clip(0, 255).astype(int).tolist()
    return red, green, blue


def _times(color: Color, light: float) -> Color:
    return _shifted(color, np.array(color) * (light - 1))


def _between(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _about(middle: Point, radius: float) -> list[float]:
    return [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
