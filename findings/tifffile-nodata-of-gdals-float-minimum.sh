#!/bin/sh
# tifffile 2026.3.3: TiffPage.nodata is 0 for a float32 GeoTIFF whose no-data value is float32's own minimum, the commonest
# one of elevation models, as rasterio 1.4.4 (GDAL 3.10) writes it. The tag's text is right; only a line on the logger
# tells. 0 is what the attribute says where a file has no such tag as well, and it is what tifffile pads tiles with.
#
# Guess before running: page.nodata is the float32 minimum, or None where the text could not be read.
#
# Seen:
#   no data -3.4028234663852886e+38: tag '-3.4028234663852886e+38', page.nodata 0
#   no data -9999.0: tag '-9999', page.nodata -9999.0
#   no tag: page.nodata 0
#
# So: read tag 42113's text, and cast it to the samples' type; the attribute cannot tell "none" from "0".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet tifffile==2026.3.3 numpy==2.4.6 rasterio==1.4.4 2>/dev/null
"$folder/env/bin/python" - <<'PYTHON'
import io
import logging
import sys
import warnings

import numpy as np
import rasterio
import tifffile

warnings.simplefilter("ignore")  # rasterio: no georeference
logging.disable()


def page(nodata):
    with rasterio.MemoryFile() as memory:
        options = {"width": 16, "height": 16, "count": 1, "dtype": "float32", "nodata": nodata}
        with memory.open(driver="GTiff", **options) as opened:
            opened.write(np.ones((1, 16, 16), np.float32))
        return tifffile.TiffFile(io.BytesIO(memory.read())).pages[0]


lowest = float(np.finfo(np.float32).min)
ok = True
for nodata, seen in ((lowest, 0), (-9999.0, -9999.0)):
    found = page(nodata)
    print(f"no data {nodata}: tag {found.tags[42113].value!r}, page.nodata {found.nodata}")
    ok &= found.nodata == seen and float(found.tags[42113].value) == nodata
found = page(None)
print(f"no tag: page.nodata {found.nodata}")
ok &= 42113 not in found.tags and found.nodata == 0
sys.exit(0 if ok else "changed: the behaviour is not what was seen")
PYTHON
