"""numpy's own file.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

import io

import numpy as np

from models.types import Array
from service.formats.registry import renders
from service.formats.result import SegmentationResult


@renders("application/x-npy", name="npy")
def npy(result: SegmentationResult) -> bytes:
    """numpy's own file: uint8 [H, W] of cluster ids."""
    return save(result.labels)


def save(array: Array) -> bytes:
    """An array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
