"""numpy's own file.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from models.types import Array
from service.formats.registry import renders

if TYPE_CHECKING:
    from service.formats.result import Result


@renders("application/x-npy", name="npy")
def npy(result: Result) -> bytes:
    """numpy's own file: uint8 [H, W] of cluster ids."""
    return _npy(result.labels)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
