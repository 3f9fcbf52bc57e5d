"""A native function for CVAT that makes a mask of clicks: what is like the places that were clicked.

Likeness is the cosine of the network's codes, as `POST /similar` answers it. A label is chosen by whoever clicks.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask
from numpy.typing import NDArray

from models.similarity import LIKE, alike
from tessera.client import Client
from tessera.client.images import read
from tessera.client.options import ImageOptions


class EncodedImage(NamedTuple):
    """An image's file, and its size (H, W)."""

    file: bytes
    size: tuple[int, int]


class ClickInteraction:
    """The function: at least one place that is meant, any number that are not, and a box around what is meant."""

    spec = cvataa.InteractionFunctionSpec(min_pos_points=1, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, client: Client, options: ImageOptions, threshold: float = LIKE) -> None:
        """threshold  cosine from which a pixel counts as like the one that was clicked"""
        self.client, self._options, self._threshold = client, options, threshold

    def preprocess_image(self, context: cvataa.InteractionFunctionContext, image: PIL.Image.Image) -> EncodedImage:
        """The image as it is sent with every click; the server keeps what its network said of it."""
        return EncodedImage(read(image), (image.height, image.width))

    def detect(
        self, context: cvataa.InteractionFunctionContext, pp_image: EncodedImage, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """One mask, and its mean cosine as confidence; none where nothing is like the clicks."""
        meant = self._cosines(pp_image, prompts.pos_points)
        mask = alike(meant, self._cosines(pp_image, prompts.neg_points), self._threshold)
        if prompts.bounding_box is not None:
            (left, top), (right, bottom) = prompts.bounding_box
            inside = np.zeros_like(mask)
            inside[max(0, int(top)) : max(0, int(np.ceil(bottom))), max(0, int(left)) : max(0, int(np.ceil(right)))] = (
                True
            )
            mask = mask & inside
        if not mask.any():
            return []
        confidence = float(np.clip(np.max(meant, axis=0)[mask].mean(), 0, 1))
        told = models.AttributeValRequest(
            spec_id=int(cvataa.InteractionResultAttributes.CONFIDENCE), value=f"{confidence:.4f}"
        )
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask), attributes=[told])]

    def _cosines(self, image: EncodedImage, points: Sequence[tuple[float, float]]) -> list[NDArray[np.float32]]:
        height, width = image.size
        return [
            self.client.similar(
                image.file, min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1), **self._options
            )
            for x, y in points
        ]


def create(url: str = "", key: str = "", model: str = "", threshold: float = LIKE) -> ClickInteraction:
    """What `cvat-cli` makes of `-p url=str:http://localhost:8000` and so on.

    url, key   of the server; empty: TESSERA_URL and TESSERA_KEY of the environment, where a key is not seen by others
    threshold  cosine from which a pixel counts as like the one that was clicked
    """
    client = Client(
        url or os.environ.get("TESSERA_URL", "http://localhost:8000"), key=key or os.environ.get("TESSERA_KEY")
    )
    return ClickInteraction(client, {"model": model} if model else {}, threshold)
