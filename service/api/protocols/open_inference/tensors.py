"""The tensors of every model here, and their elements in JSON or in bytes.

Knows nothing of requests, of models, of what an image shows.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.io.pixels import Pixels
from models.types import Array
from service.api.body import base64_file, check_count
from service.errors import BadBody, quoted

_LENGTH_BYTES = 4  # of an element of BYTES: uint32, little-endian
_MOST_SIDE = 2**31


class Tensor(NamedTuple):
    """What is said of one: -1 in a shape is any size. `config` is Triton's name of the type."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    config: str


IMAGE = Tensor("IMAGE", "BYTES", (-1,), "TYPE_STRING")  # encoded files
PIXELS = Tensor("PIXELS", "UINT8", (-1, -1, -1, 3), "TYPE_UINT8")
INPUTS = (IMAGE, PIXELS)
LABELS = Tensor("LABELS", "INT32", (-1, -1, -1), "TYPE_INT32")  # cluster ids; 255: no class
CONFIDENCE = Tensor("CONFIDENCE", "FP32", (-1, -1, -1), "TYPE_FP32")  # margins, 0 to 1
CLUSTERS_PRESENT = Tensor("CLUSTERS_PRESENT", "INT32", (-1, -1), "TYPE_INT32")  # ids, largest first; -1 behind the last
OUTPUTS = (LABELS, CONFIDENCE, CLUSTERS_PRESENT)
DTYPES = {"INT32": "<i4", "FP32": "<f4"}  # of outputs, for numpy


def described(shape: Sequence[int]) -> str:
    """A shape as messages write it."""
    return f"[{','.join(map(str, shape))}]"


def shown(value: object) -> str:
    """What somebody sent where something else is wanted, for a message; it may be of any size."""
    return quoted(value if isinstance(value, str) else reprlib.repr(value))


def check_shape(tensor: Tensor, shape: object) -> tuple[int, ...]:
    """A shape that came with a tensor. Raises BadBody."""
    sizes = shape if isinstance(shape, list) else []
    whole = all(type(size) is int and 0 <= size < _MOST_SIDE for size in sizes)
    if tensor is IMAGE and whole and len(sizes) == 2 and sizes[1] == 1:  # as batches are written elsewhere
        sizes = sizes[:1]
    fits = len(sizes) == len(tensor.shape) and all(
        want in (-1, size) for want, size in zip(tensor.shape, sizes, strict=True)
    )
    if not (whole and fits):
        raise BadBody(f"{tensor.name}: its shape is {described(tensor.shape)}, not {shown(shape)}")
    if not all(sizes):
        raise BadBody(f"{tensor.name}: a tensor of the shape {described(sizes)} holds no image")
    return tuple(sizes)


def files_in_bytes(data: memoryview, count: int, max_images: int) -> list[bytes]:
    """The elements of BYTES, each behind its length. Raises BadBody, BodyTooLarge."""
    check_count(count, max_images)
    files: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        begin = at + _LENGTH_BYTES
        at = begin + length
        if at > len(data):
            raise BadBody(
                f"IMAGE: element {len(files)} ends {at - len(data)} bytes behind the tensor; each one is its length, a"
                " little-endian uint32, and then so many bytes"
            )
        files.append(bytes(data[begin:at]))
        if len(files) > count:
            break
    if len(files) != count:
        held = "more" if len(files) > count else len(files)
        raise BadBody(f"IMAGE: its shape says {count} elements, and its bytes hold {held}")
    return files


def files_in_json(data: object, count: int, max_images: int) -> list[bytes]:
    """The files in base64 texts, in a list or a list of lists. Raises BadBody, BodyTooLarge."""
    check_count(count, max_images)
    texts = data if isinstance(data, list) else []
    if texts and all(isinstance(one, list) for one in texts):
        texts = [text for one in texts for text in one]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadBody("IMAGE: in JSON its data is a list of the files in base64")
    if len(texts) != count:
        raise BadBody(f"IMAGE: its shape says {count} elements, and its data holds {len(texts)}")
    return [base64_file(text, i) for i, text in enumerate(texts)]


def pixels_in_bytes(data: memoryview, shape: tuple[int, ...], max_images: int) -> list[Pixels]:
    """The images of PIXELS, views of the data. Raises BadBody, BodyTooLarge."""
    check_count(shape[0], max_images)
    if len(data) != math.prod(shape):
        raise BadBody(f"PIXELS: {described(shape)} takes {math.prod(shape)} bytes, and {len(data)} came")
    return [Pixels(image) for image in np.frombuffer(data, np.uint8).reshape(shape)]


def pixels_in_json(data: object, shape: tuple[int, ...], max_images: int) -> list[Pixels]:
    """The same of numbers, flat or nested as the shape is. Raises BadBody, BodyTooLarge."""
    check_count(shape[0], max_images)
    try:
        values = np.array(data, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise BadBody(
            "PIXELS: its data in JSON is a list of whole numbers 0 to 255, flat or nested as its shape"
        ) from None
    if values.shape not in (shape, (math.prod(shape),)):
        raise BadBody(
            f"PIXELS: {described(shape)} takes {math.prod(shape)} numbers, and the data is {described(values.shape)}"
        )
    if not ((values >= 0) & (values <= 255)).all() or ((levels := values.astype(np.uint8)) != values).any():
        raise BadBody("PIXELS: its numbers are whole, 0 to 255; floats of 0 to 1 are multiplied by 255 first")
    return [Pixels(image) for image in levels.reshape(shape)]


def parts_of(maps: Sequence[Array], dtype: str, step: int = 2**16) -> Iterator[bytes]:
    """The bytes of a tensor that is these arrays one behind the other, piece by piece."""
    for one in maps:
        flat = one.reshape(-1)
        for start in range(0, flat.size, step):
            yield flat[start : start + step].astype(dtype).tobytes()
