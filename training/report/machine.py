"""What a run ran on: processor, memory, versions.

Knows nothing of the run. Names of machines and of people are no part of it.
"""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

from models import hardware

_PACKAGES = {"tessera": "tessera-segmentation"} | {n: n for n in ("torch", "timm", "numpy", "onnx", "onnxruntime")}


def machine(device: torch.device) -> dict[str, str]:
    """Facts by name, each a short text."""
    found = {"processor": f"{hardware.processor()}, {hardware.cores()} cores used"}
    with suppress(AttributeError, ValueError, OSError):
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["python"] = platform.python_version()
    for name, package in _PACKAGES.items():
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    return found
