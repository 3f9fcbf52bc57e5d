"""What is sent back to a call: tensors as JSON, or as bytes behind it, made while they are sent.

Knows nothing of requests, of how images were segmented.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.types import Array
from service.api import content_encoding
from service.api.protocols.open_inference.call import MOST_NUMBERS, Output
from service.api.protocols.open_inference.tensors import (
    CLUSTERS_PRESENT,
    CONFIDENCE,
    DTYPES,
    LABELS,
    Tensor,
    described,
    parts_of,
)
from service.errors import BadBody, BodyTooLarge
from service.formats.result import SegmentationResult


class Maps(NamedTuple):
    """What is kept of one image: ids present, and where they are wanted its labels, uint8 or uint16 [H, W], and its
    margins float32 [H, W]."""

    pixels: int
    labels: Array | None
    margin: Array | None
    present: list[int]
    warnings: list[str]

    @classmethod
    def of(cls, result: SegmentationResult, wanted: Sequence[Tensor]) -> "Maps":
        """Of a segmentation, what these outputs need."""
        labels = result.stored.labels if LABELS in wanted else None
        margin = result.margin if CONFIDENCE in wanted else None
        present = [area.id + result.options.id_offset for area in result.areas]
        return cls(result.labels.size, labels, margin, present, result.warnings)

    @property
    def nbytes(self) -> int:
        """Held until the answer is sent."""
        return sum(one.nbytes for one in (self.labels, self.margin) if one is not None)


class Answer(NamedTuple):
    """An answer's parts, one behind the other; `header` is how much of it is JSON, None: all."""

    parts: Iterable[bytes]
    size: int
    header: int | None


def answer(about: dict[str, Any], images: Sequence[Maps], outputs: Sequence[Output]) -> Answer:
    """The answer of images to what was asked.

    about  what stands before the outputs: the model's name, its version, the call's id

    Raises BadBody for maps of several sizes, which are no tensor, and BodyTooLarge for more than JSON is made of.
    """
    described_outputs: list[dict[str, Any]] = []
    binary: list[Iterator[bytes]] = []
    size = numbers = 0
    for tensor, as_bytes in outputs:
        maps = _maps(tensor, images)
        shape = _shape(tensor, maps)
        count = int(np.prod(shape))
        entry: dict[str, Any] = {"name": tensor.name, "shape": shape, "datatype": tensor.datatype}
        dtype = DTYPES[tensor.datatype]
        if as_bytes:
            entry["parameters"] = {"binary_data_size": count * np.dtype(dtype).itemsize}
            size += count * np.dtype(dtype).itemsize
            binary.append(parts_of(maps, dtype))
        elif (numbers := numbers + count) > MOST_NUMBERS:
            raise BodyTooLarge(
                f"{tensor.name} {described(shape)} and what else is asked for are more than the {MOST_NUMBERS} numbers"
                " that JSON is made of here; take outputs as bytes (binary_data), or send a smaller image"
            )
        else:
            entry["data"] = np.concatenate([one.reshape(-1) for one in maps]).astype(dtype)
        described_outputs.append(entry)
    head = orjson.dumps({**about, "outputs": described_outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer(chain([head], *binary), len(head) + size, len(head) if binary else None)


def folded(whole: Answer, encoding: str) -> Answer:
    """The same, compressed."""
    parts = content_encoding.folded(whole.parts, encoding)
    return Answer(parts, sum(map(len, parts)), whole.header)


def _maps(tensor: Tensor, images: Sequence[Maps]) -> list[Array]:
    """One array for each image."""
    if tensor is CLUSTERS_PRESENT:
        most = max(len(image.present) for image in images)
        return [np.array(image.present + [-1] * (most - len(image.present)), np.int32) for image in images]
    maps = [image.labels if tensor is LABELS else image.margin for image in images]
    return [one for one in maps if one is not None]


def _shape(tensor: Tensor, maps: Sequence[Array]) -> list[int]:
    sizes = [one.shape for one in maps]
    for i, size in enumerate(sizes):
        if size != sizes[0]:
            raise BadBody(
                f"{tensor.name} is one tensor, and the images have several sizes: [H,W] of image 0 is"
                f" {described(sizes[0])}, of image {i} {described(size)}; send one call for each size"
            )
    return [len(maps), *sizes[0]]


class TensorResponse(Response):
    """An answer that is sent part by part, and what it holds let go when it was; `held` is closed then."""

    def __init__(self, whole: Answer, encoding: str, held: AsyncExitStack) -> None:
        headers = {"vary": "accept-encoding"}
        if whole.header is not None:
            headers["inference-header-content-length"] = str(whole.header)
        if encoding:
            headers["content-encoding"] = encoding
        media_type = "application/json" if whole.header is None else "application/octet-stream"
        super().__init__(None, 200, headers, media_type)
        self.headers["content-length"] = str(whole.size)
        self._parts, self._held = whole.parts, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As fast as its client reads."""
        async with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for part in self._parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
