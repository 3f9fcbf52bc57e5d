"""Pictures drawn for the tests of this folder, and their files as other writers make them."""

import io

import numpy as np
import tifffile
from PIL import Image

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)


def textured(height: int, width: int) -> Image.Image:
    """Edges, slopes and noise: what tells one upsampling of colors from another."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width))
    channels = [(x * 7 + y * 3) % 256, ((x // 5 + y // 3) % 2) * 200, noise]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file Pillow makes of it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: np.ndarray, **options: object) -> bytes:
    """The file tifffile makes of samples [H, W], [H, W, bands] or [pages, H, W]."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()
