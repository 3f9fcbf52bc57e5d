#!/bin/sh
# tifffile 2026.3.3 (with imagecodecs 2026.3.6) writes packed samples of 9 to 15 bits wrongly where byteorder is ">":
# the samples' bytes are swapped before their bits are packed. No error, no warning; tifffile and GDAL (rasterio 1.4.4)
# agree on reading other values than were written. Little-endian files of the same samples are right, and so are
# 16-bit ones in either order.
#
# Guess before running: a writer that takes bitspersample=12 and byteorder=">" round-trips, as it does for 8 and 16 bits.
#
# Seen:
#   12 bits, little-endian: tifffile reads back True, GDAL True
#   12 bits, big-endian: tifffile reads back False, GDAL False; first samples 0 63 126 189 became 0 3840 3584 3328
#   16 bits, big-endian: tifffile reads back True, GDAL True
#
# So: who makes 10-, 12- or 14-bit test files of either byte order cannot use this writer for the big-endian half.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 rasterio==1.4.4
"$folder/env/bin/python" - <<'PYTHON'
import io
import sys
import warnings

import numpy as np
import rasterio
import tifffile

warnings.simplefilter("ignore")  # rasterio: no georeference
samples = np.arange(64, dtype=np.uint16).reshape(4, 16) * 63


def written(bits, order):
    buffer = io.BytesIO()
    options = {} if bits == 16 else {"bitspersample": bits}
    tifffile.imwrite(buffer, samples, byteorder=order, photometric="minisblack", metadata=None, **options)
    data = buffer.getvalue()
    with rasterio.MemoryFile(data) as memory, memory.open() as opened:
        return tifffile.imread(io.BytesIO(data)), opened.read(1)


expected = {(12, "<"): True, (12, ">"): False, (16, ">"): True}
ok = True
for (bits, order), right in expected.items():
    own, gdal = written(bits, order)
    name = "little" if order == "<" else "big"
    print(f"{bits} bits, {name}-endian: tifffile reads back {bool((own == samples).all())},"
          f" GDAL {bool((gdal == samples).all())}; first samples {own.ravel()[:4].tolist()}")
    ok &= bool((own == samples).all()) == bool((gdal == samples).all()) == right
    ok &= bool((own == gdal).all())
sys.exit(0 if ok else "changed: the behaviour is not what was seen")
PYTHON
