"""Any row of the table in any layout a writer may choose: the samples GDAL reads, shown by the rule; or refused.

GDAL (rasterio) is the independent reader, tifffile the writer.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from models.io.decode import decode
from models.io.photometric import TABLE
from models.io.samples import ImageError
from tests.models.io.drawn import directory_file

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

_GRAY = ("minisblack", "miniswhite", "rgb")


@dataclass(frozen=True)
class Drawn:
    """One file: its samples [H, W, bands], and how they are laid out."""

    samples: np.ndarray
    options: dict[str, Any]
    nodata: int | None

    @property
    def data(self) -> bytes:
        laid = self.samples
        if laid.shape[2] == 1:
            laid = laid[..., 0]
        elif self.options["planarconfig"] == "separate":
            laid = np.ascontiguousarray(np.moveaxis(laid, 2, 0))
        tags = [] if self.nodata is None else [(42113, 2, 0, str(self.nodata), True)]
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, laid, extratags=tags, metadata=None, **self.options)
        return buffer.getvalue()


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    photometric = draw(st.sampled_from(_GRAY))
    kind, bits = draw(st.sampled_from([("u", n) for n in (1, 2, 4, 8, 12, 16, 32)] + [("i", 8), ("i", 16), ("i", 32)]
                                      + [("f", 16), ("f", 32), ("f", 64)]))  # fmt: skip
    bands = draw(st.integers(3, 6) if photometric == "rgb" else st.integers(1, 5))
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    whole = bits in (8, 16, 32, 64)
    compression = draw(st.sampled_from([None, "zlib", "lzw", "packbits", "zstd"])) if whole else None
    options: dict[str, Any] = {
        "photometric": photometric,
        "compression": compression,
        "predictor": (compression in ("zlib", "lzw", "zstd") and whole and draw(st.booleans())) or None,
        "tile": draw(st.sampled_from([None, (16, 16), (32, 48)])),
        "byteorder": draw(st.sampled_from("<>")) if whole else "<",
        "bigtiff": draw(st.booleans()),
    }
    if options["tile"] is None:
        options["rowsperstrip"] = draw(st.integers(1, height))
    if bands > 1:
        options["planarconfig"] = draw(st.sampled_from(["contig", "separate"]))
        options["extrasamples"] = ["unspecified"] * (bands - (3 if photometric == "rgb" else 1))
    if not whole:
        options["bitspersample"] = bits
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dtype = f"{kind}{max(8, 1 << (bits - 1).bit_length()) // 8}"
    if kind == "f":
        samples = rng.normal(size=(height, width, bands)).astype(dtype) * 50
    else:
        low = -(2 ** (bits - 1)) if kind == "i" else 0
        samples = rng.integers(low, low + 2 ** min(bits, 31), (height, width, bands)).astype(dtype)
    nodata = draw(st.sampled_from([None, 0, 1, 7])) if kind != "f" else None
    return Drawn(samples, options, nodata)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(files())
def test_every_layout_is_gdals_samples_by_the_rule(drawn: Drawn) -> None:
    data = drawn.data
    with rasterio.MemoryFile(data) as memory, memory.open() as opened:
        stored = np.moveaxis(opened.read(), 0, 2)
    bits = drawn.options.get("bitspersample", 8 * drawn.samples.itemsize)
    bands = list(range(3)) if stored.shape[2] >= 3 else [0]
    want, valid = by_the_rule(stored[..., bands], bits, drawn.nodata, drawn.options["photometric"] == "miniswhite")
    got = decode(data)
    assert got.image.shape[:2] == stored.shape[:2]
    assert ((got.valid if got.valid is not None else np.ones_like(valid)) == valid).all()
    assert np.abs(got.image.astype(int) - np.broadcast_to(want, got.image.shape)).max() <= 1


def by_the_rule(samples: np.ndarray, bits: int, nodata: int | None, inverted: bool) -> tuple[np.ndarray, np.ndarray]:
    """What docs/formats.md says, in numpy alone: (uint8 [H, W, bands], bool [H, W])."""
    plain = samples.astype(np.float64)
    good = np.isfinite(plain) if nodata is None else plain != nodata
    valid = good.any(axis=2)
    eight = samples.dtype == np.uint8 and bits <= 8
    low, high = 0.0, float(2**bits - 1)
    if not eight:
        inside = plain[good].astype(np.float32)
        low, high = (float(v) for v in np.percentile(inside, (2, 98))) if inside.size else (0.0, 0.0)
        if inside.size and high <= low:
            low, high = float(inside.min()), float(inside.max())
    shown = np.clip((plain - low) * (255 / (high - low) if high > low else 0), 0, 255)
    shown = np.rint(255 - shown if inverted else shown)
    if not eight:
        shown[~good] = 0
    shown[~valid] = 0
    return shown, valid


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 11), st.sampled_from([1, 2, 3, 4]), st.integers(1, 70), st.integers(1, 5))
def test_every_pair_has_a_row_or_a_name(photometric: int, sample_format: int, bits: int, bands: int) -> None:
    format = {1: "uint", 2: "int", 3: "float", 4: "uint"}[sample_format]
    rows = [row for row in TABLE if row.photometric == photometric and row.format == format and bits in row.bits]
    if rows and bands >= rows[0].colors and photometric != 3:  # palettes want colors beside
        assert decode(bare(photometric, sample_format, bits, bands)).image.shape == (4, 4, 3)
    else:
        with pytest.raises(ImageError, match=r".{30}"):
            decode(bare(photometric, sample_format, bits, bands))


def bare(photometric: int, sample_format: int, bits: int, bands: int) -> bytes:
    """A file of one strip of zeros whose tags say so."""
    tags = {256: 4, 257: 4, 259: 1, 262: photometric, 277: bands, 278: 4, 530: (1, 1)}
    tags |= {258: (bits,) * bands, 339: (sample_format,) * bands}
    body = bytes(4 * -(-4 * bands * bits // 8))
    return directory_file(tags, body)
