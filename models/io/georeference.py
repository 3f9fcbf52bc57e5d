"""Where a picture lies on the earth: numbers alone, for the picture as it is shown.

Knows nothing of files, nor of what a coordinate system means: that is text here (WKT), read by `models.io.geodesy`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from models.io.samples import Size

Affine = tuple[float, float, float, float, float, float]

RPC_OFFSETS = ("line_off", "samp_off", "lat_off", "long_off", "height_off")
RPC_SCALES = ("line_scale", "samp_scale", "lat_scale", "long_scale", "height_scale")
RPC_TERMS = ("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff")  # 20 numbers each


class ControlPoint(NamedTuple):
    """A place in the picture, in pixels from its upper left corner, whose place on the earth is known."""

    row: float
    column: float
    x: float
    y: float
    z: float = 0.0


@dataclass(frozen=True)
class Georeference:
    """What a file says of where its picture lies.

    crs        coordinate system of x and y, as WKT; None: the file does not say
    transform  (a, b, c, d, e, f): x = a·column + b·row + c, y = d·column + e·row + f, in pixels from the corner
    points     that are known instead, in the same system
    rpcs       rational polynomials from longitude, latitude and height to the centers of pixels, as rasterio names
               them: numbers, RPC_TERMS lists of 20
    pixel_is_point  whether the file means its samples as points, not as areas; the numbers are of areas either way
    """

    crs: str | None = None
    transform: Affine | None = None
    points: tuple[ControlPoint, ...] = ()
    rpcs: dict[str, Any] | None = None
    pixel_is_point: bool = False

    @property
    def placed(self) -> bool:
        """Whether a pixel has a place: by a transform, by points, or by polynomials."""
        return self.transform is not None or bool(self.points) or self.rpcs is not None

    def turned(self, orientation: int, size: Size) -> "Georeference":
        """Of the picture as it is shown, where this is of the one stored with EXIF orientation 1..8 in size (H, W)."""
        height, width = size
        stored_from_shown: dict[int, Affine] = {
            2: (-1, 0, width, 0, 1, 0),
            3: (-1, 0, width, 0, -1, height),
            4: (1, 0, 0, 0, -1, height),
            5: (0, 1, 0, 1, 0, 0),
            6: (0, 1, 0, -1, 0, height),
            7: (0, -1, width, -1, 0, height),
            8: (0, -1, width, 1, 0, 0),
        }
        return self._seen_through(stored_from_shown[orientation]) if orientation in stored_from_shown else self

    def resized(self, size: Size, to: Size) -> "Georeference":
        """Of the same picture in another size (H, W)."""
        if size == to:
            return self
        return self._seen_through((size[1] / to[1], 0, 0, 0, size[0] / to[0], 0))

    def _seen_through(self, m: Affine) -> "Georeference":
        """Where (column, row) of another picture is m(column, row) of this one; each of them follows one axis."""
        transform = self.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (
                a * m[0] + b * m[3], a * m[1] + b * m[4], a * m[2] + b * m[5] + c,
                d * m[0] + e * m[3], d * m[1] + e * m[4], d * m[2] + e * m[5] + f,
            )  # fmt: skip
        points = tuple(
            ControlPoint(*_back(m, point.row, point.column), point.x, point.y, point.z) for point in self.points
        )
        return replace(self, transform=transform, points=points, rpcs=self.rpcs and _rpcs_through(m, self.rpcs))


def _back(m: Affine, row: float, column: float) -> tuple[float, float]:
    """(row, column) that m takes to these."""
    if m[0]:
        return (row - m[5]) / m[4], (column - m[2]) / m[0]
    return (column - m[2]) / m[1], (row - m[5]) / m[3]


def _rpcs_through(m: Affine, rpcs: dict[str, Any]) -> dict[str, Any]:
    """Polynomials of the other picture; theirs are the centers of pixels, not the corners."""
    line, samp = _back(m, rpcs["line_off"] + 0.5, rpcs["samp_off"] + 0.5)
    moved = {**rpcs, "line_off": line - 0.5, "samp_off": samp - 0.5}
    for to, along, factor in (("line", "line" if m[0] else "samp", m[4] or m[1]),
                              ("samp", "samp" if m[0] else "line", m[0] or m[3])):  # fmt: skip
        sign = 1 if factor > 0 else -1
        moved[f"{to}_scale"] = rpcs[f"{along}_scale"] / abs(factor)
        moved[f"{to}_num_coeff"] = [sign * term for term in rpcs[f"{along}_num_coeff"]]
        moved[f"{to}_den_coeff"] = rpcs[f"{along}_den_coeff"]
    return moved
