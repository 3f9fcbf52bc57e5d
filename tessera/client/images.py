"""Whatever holds an image → the bytes of a file that the server reads.

Knows nothing of HTTP. Files go as they are; pixels go as PNG, which loses nothing.
"""

import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tessera.client.errors import BadImage

ImageInput: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.generic] | Image.Image | BinaryIO
)
_KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I;16")


def read(image: ImageInput) -> bytes:
    """The bytes of an image's file.

    image  a path; the bytes of a file, or a file that is open for reading them; a PIL image as it stands, without
           EXIF's turn; an array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA) of uint8 or uint16

    Raises BadImage, saying what is wrong with it.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return _some(bytes(image), "these bytes")
    if isinstance(image, str | os.PathLike):
        return _file(image)
    if isinstance(image, Image.Image):
        return _png(np.asarray(_plain(image)))
    if isinstance(image, np.ndarray):
        return _png(image)
    if hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, bytes):
            raise BadImage("the file is open as text; open it with mode 'rb'")
        return _some(data, "this file, which may have been read before,")
    raise BadImage(f"{type(image).__name__} is no image; give a path, bytes, a file, an array or a PIL image")


def _file(path: str | os.PathLike[str]) -> bytes:
    if str(path).startswith(("http://", "https://")):
        raise BadImage(f"{str(path)!r} is an address; fetch it, and give its bytes")
    try:
        return _some(Path(path).read_bytes(), f"{str(path)!r}")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadImage(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _some(data: bytes, what: str) -> bytes:
    if not data:
        raise BadImage(f"{what} has no bytes")
    return data


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in _KEPT_MODES:
        return image
    if image.mode in ("I", "F"):
        raise BadImage(f"a PIL image of mode {image.mode} has no range; give an array of uint8 or uint16")
    return image.convert("RGBA" if "transparency" in image.info or image.mode in ("PA", "La", "RGBa") else "RGB")


def _png(pixels: NDArray[np.generic]) -> bytes:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise BadImage(f"an array of {pixels.dtype} has no range; scale it to uint8 (0..255) or uint16")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4))) or pixels.size == 0:
        raise BadImage(f"an array of shape {pixels.shape} is no image; give [H, W], [H, W, 3] or [H, W, 4]")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=1))
