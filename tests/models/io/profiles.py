"""ICC profiles drawn for the tests of this folder, and what such colors are as sRGB.

Sources: ICC.1:2001-04 (version 2.4), §6; ITU-R BT.601-7, BT.709-6, BT.2020-2; SMPTE EG 432-1 (Display P3's primaries).
"""

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])  # columns: R, G, B
WIDE = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])  # ProPhoto's


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += padded
    illuminant = b"".join(struct.pack(">i", round(v * 65536)) for v in D50)
    head = b"lcms" + b"\x02\x40\0\0" + kind + space + pcs + bytes(12) + b"acsp" + bytes(28) + illuminant
    head = struct.pack(">I", at + len(body)) + head + bytes(124 - len(head))
    return head + struct.pack(">I", len(tags)) + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def _srgb_curve() -> bytes:
    x = np.arange(1024) / 1023
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + np.rint(linear * 65535).astype(">u2").tobytes()


def rgb(matrix: np.ndarray = WIDE, gamma: float = 1.8) -> bytes:
    """Of a display: `matrix` takes linear R, G, B to XYZ relative to D50."""
    tags = {b"wtpt": _xyz(D50)}
    for n, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"], tags[name + b"TRC"] = _xyz(matrix[:, n]), _gamma(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def srgb() -> bytes:
    """sRGB as a scanner's maker writes it: the curve as a table."""
    tags = {b"wtpt": _xyz(D50)}
    for n, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"], tags[name + b"TRC"] = _xyz(SRGB[:, n]), _srgb_curve()
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray(gamma: float = 1.0) -> bytes:
    """Of gray samples."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


def cmyk(lab_of_inks: np.ndarray) -> bytes:
    """Of four inks, each none or all [2, 2, 2, 2, 3]: L 0..100, a and b; what lies between is interpolated."""
    scaled = np.rint((lab_of_inks + np.array([0, 128, 128])) * np.array([2.55, 1, 1])).astype(np.uint8)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    matrix = np.eye(3).ravel()
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + b"".join(struct.pack(">i", int(v) << 16) for v in matrix)
    table += identity * 4 + scaled.tobytes() + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": table})


def shown(samples: np.ndarray, matrix: np.ndarray = WIDE, gamma: float = 1.8) -> np.ndarray:
    """RGB uint8 of a display with this matrix and gamma as sRGB: the arithmetic of the standards, without littleCMS."""
    linear = (samples / 255) ** gamma @ matrix.T @ np.linalg.inv(SRGB).T
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


BT_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of red, green and blue; the white is D65's
BT_601_625 = (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)
BT_601_525 = (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
BT_2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
DISPLAY_P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def srgb_to_light(samples: np.ndarray) -> np.ndarray:
    """0..255 in sRGB's curve to linear 0..1."""
    x = samples / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def as_srgb(light: np.ndarray, primaries: tuple[float, ...]) -> np.ndarray:
    """Linear R, G, B of these primaries and D65 as sRGB uint8: by XYZ itself, without an adaptation."""

    def to_xyz(xy: tuple[float, ...]) -> np.ndarray:
        columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in zip(xy[::2], xy[1::2], strict=True)]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    linear = np.clip(light @ to_xyz(primaries).T @ np.linalg.inv(to_xyz(BT_709)).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)
