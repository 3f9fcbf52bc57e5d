#!/bin/sh
# rasterio 1.4.4 (GDAL 3.10.3): a GeoTIFF is written with control points and AREA_OR_POINT=Point; read again, every point
# lies one whole pixel further right and down. With Area, or with a transform in the place of the points, nothing moves.
# A copy of such a file (GTiff or COG) moves nothing any more: the error is made once, when the file is first written.
#
# Guess before running: the points come back where they were put, as a transform does with either value.
#
# Seen:
#   Area, points: (0.0, 0.0) comes back as (0.0, 0.0)
#   Point, points: (0.0, 0.0) comes back as (1.0, 1.0)
#   Point, a copy of that: (1.0, 1.0)
#   Point, transform: origin (500000.0, 5000000.0) comes back as (500000.0, 5000000.0)
#
# So: files with control points are written as Area, whatever their source says; the points' numbers mean the same there.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet numpy==2.4.6 rasterio==1.4.4 2>/dev/null
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.shutil import copy

warnings.simplefilter("ignore")  # rasterio: no geotransform
corners = ((0, 0), (0, 100), (100, 0), (100, 100))
points = [GroundControlPoint(row, column, 10 + column / 100, 50 - row / 100) for row, column in corners]


def written(name, kind, **place):
    path = f"{sys.argv[1]}/{name}.tif"
    with rasterio.open(path, "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8", **place) as dataset:
        dataset.write(np.zeros((100, 100), np.uint8), 1)
        dataset.update_tags(AREA_OR_POINT=kind)
    return path


def first(path):
    with rasterio.open(path) as dataset:
        point = dataset.gcps[0][0]
        return point.row, point.col


ok = True
for kind, seen in (("Area", (0, 0)), ("Point", (1, 1))):
    path = written(kind, kind, gcps=points, crs="EPSG:4326")
    print(f"{kind}, points: (0.0, 0.0) comes back as {first(path)}")
    ok &= first(path) == seen
copy(path, f"{sys.argv[1]}/copy.tif", driver="COG")
print(f"Point, a copy of that: {first(f'{sys.argv[1]}/copy.tif')}")
ok &= first(f"{sys.argv[1]}/copy.tif") == (1, 1)
place = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
with rasterio.open(written("transform", "Point", transform=place, crs="EPSG:32633")) as dataset:
    origin = dataset.transform.c, dataset.transform.f
print(f"Point, transform: origin (500000.0, 5000000.0) comes back as {origin}")
ok &= origin == (5e5, 5e6)
sys.exit(0 if ok else "changed: the behaviour is not what was seen")
PYTHON
