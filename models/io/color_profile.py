"""ICC profiles of colors that a file states in other words: code points (CICP), or a gamma and chromaticities.

Knows nothing of file formats, of how profiles are applied (`models.io.color`). Sources: ITU-T H.273, 8.1 and 8.2 (the
code points); ICC.1:2001-04, 6 (version 2 of profiles) and its annex E (adaptation to D50).
"""

import struct

import numpy as np

from models.types import Array

Chromaticities = tuple[float, ...]  # x, y of red, green, blue and white

UNSPECIFIED = 2  # of primaries, and of transfer characteristics
_D65 = (0.3127, 0.3290)
_SRGB = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65)
_PRIMARIES: dict[int, Chromaticities] = {
    1: _SRGB,  # BT.709 has sRGB's
    UNSPECIFIED: _SRGB,
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),  # BT.601 of 625 lines
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),  # BT.601 of 525 lines
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),  # Display P3
}
# The curves of BT.601, BT.709 and BT.2020 are a camera's: what displays do with them is not theirs to say, and is taken
# for sRGB's, as Chromium does for videos and AVIF (in PNG it takes a gamma of 2.4 for them, which is BT.1886's).
_SRGB_CURVES = (1, UNSPECIFIED, 6, 13, 14, 15)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_CURVE_POINTS = 4096
_NEAR = 0.005  # chromaticities that differ by less are the same; those of BT.601 differ from sRGB's by .01


def of_code_points(primaries: int, transfer: int, warnings: list[str] | None = None) -> bytes | None:
    """The profile of colors with these code points; None where they are sRGB, or cannot be converted.

    warnings  gets a sentence where they cannot: HDR would have to be mapped to what a display shows
    """
    problem = None
    if transfer in _HDR:
        problem = f"its colors are HDR ({_HDR[transfer]}), which is not converted"
    elif primaries not in _PRIMARIES or (transfer not in _SRGB_CURVES and transfer not in _GAMMAS):
        problem = f"its colors (CICP {primaries}/{transfer}) are not known, and were not converted"
    if problem:
        if warnings is not None:
            warnings.append(problem)
        return None
    matrix = _to_d50(_PRIMARIES[primaries])
    if matrix is None or (transfer in _SRGB_CURVES and _PRIMARIES[primaries] == _SRGB):
        return None
    return _profile(matrix, _power(_GAMMAS[transfer]) if transfer in _GAMMAS else _srgb_curve())


def of_gamma(exponent: float, chromaticities: Chromaticities | None = None) -> bytes | None:
    """The profile of colors that are light after this power, 2.2 of most displays; None where they are nearly sRGB.

    chromaticities  sRGB's where they are not given; those of no sense make no profile, as an exponent that no curve has
    """
    chromaticities = chromaticities or _SRGB
    matrix = _to_d50(chromaticities)
    if matrix is None or not 1 / 256 <= exponent < 256:
        return None
    if abs(exponent / 2.2 - 1) <= 0.01 and np.abs(np.subtract(chromaticities, _SRGB)).max() <= _NEAR:
        return None
    return _profile(matrix, _power(exponent))


def _to_d50(chromaticities: Chromaticities) -> Array | None:
    """Linear R, G, B to XYZ relative to D50, by Bradford's adaptation; None where there is no such matrix."""
    x, y = np.array(chromaticities, np.float64).reshape(4, 2).T
    if (y <= 0).any():
        return None
    *primaries, white = np.stack([x / y, np.ones(4), (1 - x - y) / y], -1)
    cones = _BRADFORD @ white
    columns = np.stack(primaries, -1)
    if abs(np.linalg.det(columns)) < 1e-6 or (cones <= 0).any():
        return None
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    matrix: Array = adaptation @ columns * np.linalg.solve(columns, white)
    return matrix if np.abs(matrix).max() < 16 else None  # a sensible one has less than 1.1


def _power(exponent: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, min(65535, max(1, round(exponent * 256))))


def _srgb_curve() -> bytes:
    """Source: IEC 61966-2-1, 5.2."""
    x = np.arange(_CURVE_POINTS) / (_CURVE_POINTS - 1)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    samples: bytes = np.rint(light * 65535).astype(">u2").tobytes()
    return b"curv" + struct.pack(">II", 0, _CURVE_POINTS) + samples


def _profile(matrix: Array, curve: bytes) -> bytes:
    """Of a display with one curve for its three colors."""
    tags = {b"wtpt": _xyz(_D50)} | {b"%cXYZ" % name: _xyz(matrix[:, n]) for n, name in enumerate(b"rgb")}
    at = 132 + 12 * (len(tags) + 3)
    table, body = b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    for name in (b"rTRC", b"gTRC", b"bTRC"):  # the three share it
        table += name + struct.pack(">II", at + len(body), len(curve))
    body += curve + bytes(-len(curve) % 4)
    head = struct.pack(">I", at + len(body)) + bytes(4) + b"\x02\x40\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + _xyz(_D50)[8:]
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags) + 3) + table + body


def _xyz(values: Array) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
