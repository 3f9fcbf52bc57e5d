"""numpy's own file.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.io import encode
from service.formats.registry import renders

if TYPE_CHECKING:
    from service.formats.result import Result


@renders("application/x-npy", name="npy")
def npy(result: Result) -> bytes:
    """numpy's own file: uint8 [H, W] of cluster ids."""
    return encode.npy(result.labels)
