"""Output formats: one function each. The files are read in this order, in which `format=` lists them."""

from importlib import import_module

for _file in ("document", "pictures", "npy", "rle", "coco", "panoptic", "geojson", "geotiff", "geopackage", "archive"):
    import_module(f"{__name__}.{_file}")
