"""Output formats: one function each. The three files are read in this order, in which `format=` lists them."""

from importlib import import_module

for _file in ("document", "pictures", "npy"):
    import_module(f"{__name__}.{_file}")
