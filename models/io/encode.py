"""Pixels and arrays to the bytes of a file. Label maps have their own writer, `models.io.png`.

Knows nothing of clusters, of networks, of HTTP.
"""

import io
from typing import Any, Literal

import numpy as np
from PIL import Image

from models.io import jpeg
from models.types import Array


def encode(image: Array, kind: Literal["png", "jpeg", "webp"], quality: int = 90) -> bytes:
    """A file's bytes: RGB or RGBA uint8 [H, W, 3|4], or gray [H, W]; JPEG takes no alpha."""
    if kind == "jpeg":  # colors at full resolution: a cluster's ends where the cluster ends
        return jpeg.encode(np.ascontiguousarray(image), quality)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 3} if kind == "png" else {"quality": quality}
    Image.fromarray(image).save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    """numpy's own file of an array. Raises ValueError where it holds Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
