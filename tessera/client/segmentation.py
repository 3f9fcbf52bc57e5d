"""One image's answer: its label map, what the clusters in it are, and pictures of them.

Knows nothing of HTTP.
"""

import base64
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from models import palette
from models.io import decode as files
from models.io.encode import encode
from models.io.png import encode_palette
from models.io.samples import Choice, Limits
from models.run_length import run_lengths
from tessera.client.answers import Suggestion
from tessera.client.errors import BadImage, ClientError

NO_CLASS = 255
_OWN = Limits(max_bytes=2**40, max_mpx=1e6, max_side_px=2**31)  # the caller's own file, which the server has read


@dataclass(frozen=True)
class Present:
    """One cluster in one image.

    fraction    of the pixels that hold data;  bbox  x, y, width, height in pixels
    confidence  mean margin, 0..1
    """

    id: int
    name: str
    color: str
    pixels: int
    fraction: float
    bbox: tuple[int, int, int, int]
    confidence: float
    hidden: bool


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What `segment` answers.

    labels      uint8 [H, W] of ids as a viewer shows the image; 255: no class
    clusters    those in this image, the largest first: with `classes=True` the classes;  k  how many are told apart
    familiarity  share of the training images that the network was less sure of, 0..1
    familiar    whether the photo is like those; both are None where the bundle does not say
    confidence  float32 [H, W], margins 0..1, where `confidence=True` asked for them
    warnings    what the server had to leave out or could not do;  timings_ms  by stage
    document    everything the server said, as JSON has it
    """

    labels: NDArray[np.uint8]
    clusters: tuple[Present, ...]
    k: int
    model: str
    digest: str
    warnings: tuple[str, ...]
    timings_ms: Mapping[str, float]
    familiarity: float | None
    familiar: bool | None
    confidence: NDArray[np.float32] | None
    document: Mapping[str, Any] = field(repr=False)
    source: bytes = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any], source: bytes, options: Mapping[str, Any]) -> "Segmentation":
        """Of JSON's answer for the file in `source`. Raises ClientError where its map is none."""
        size = document["width"], document["height"]
        margin = document.get("confidence_map")
        return cls(
            labels=_pixels(document["label_map"], size),
            clusters=tuple(_present(cluster) for cluster in document["clusters"]),
            k=document["k"],
            model=document["model"],
            digest=document["digest"],
            warnings=tuple(document["warnings"]),
            timings_ms=document["timings_ms"],
            familiarity=document.get("familiarity"),
            familiar=document.get("familiar"),
            confidence=None if margin is None else _pixels(margin, size).astype(np.float32) / np.float32(255),
            document=document,
            source=source,
            options=options,
        )

    @property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """Places to teach next, where `classes=True` asked for classes."""
        return tuple(Suggestion.of(one) for one in self.document.get("suggestions", ()))

    @property
    def names(self) -> dict[int, str]:
        """Of the clusters in this image, by id."""
        return {cluster.id: cluster.name for cluster in self.clusters}

    @property
    def colors(self) -> dict[int, tuple[int, int, int]]:
        """The same clusters' colors: red, green, blue."""
        rgb = {cluster.id: palette.from_hex(cluster.color).tolist() for cluster in self.clusters}
        return {id: (red, green, blue) for id, (red, green, blue) in rgb.items()}

    @property
    def width(self) -> int:
        """Of the label map, in pixels."""
        return int(self.labels.shape[1])

    @property
    def height(self) -> int:
        """Of the label map, in pixels."""
        return int(self.labels.shape[0])

    def mask(self, cluster: int | str) -> NDArray[np.bool_]:
        """Where a cluster is, by id or name: bool [H, W]. Raises KeyError where this image has none of it."""
        for present in self.clusters:
            if cluster in (present.id, present.name):
                return np.equal(self.labels, present.id)
        raise KeyError(f"no cluster {cluster!r} in this image; there are {self.names}")

    def image(self) -> NDArray[np.uint8]:
        """The photo as the server saw it: RGB uint8 [H, W, 3], upright. Raises ImageError, BadImage."""
        choice = self.options
        bands = choice.get("bands")
        decoded = files.inspect(
            self.source,
            limits=_OWN,
            choice=Choice(
                depth=choice.get("depth") or "percentile",
                page=choice.get("page") or 0,
                bands=None if bands is None else tuple(int(band) for band in _parts(bands)),
                level=_level(choice.get("pyramid")),
            ),
        ).decode()
        pixels: NDArray[np.uint8] = decoded.image
        if pixels.shape[:2] != self.labels.shape:
            raise BadImage(
                f"the photo has {pixels.shape[1]}×{pixels.shape[0]} pixels, the map {self.width}×{self.height}"
            )
        return pixels

    def overlay(self, alpha: float = 0.5, only: Iterable[int] | None = None) -> NDArray[np.uint8]:
        """The photo under its clusters' colors: RGB uint8 [H, W, 3], as the server's own overlay before it is a JPEG.

        alpha  opacity, 0..1;  only  ids that are painted; None: all but the hidden ones
        """
        shown = {cluster.id for cluster in self.clusters if not cluster.hidden} if only is None else set(only)
        blended: NDArray[np.uint8] = palette.overlay(
            self.image(), self.labels, self._table(), alpha, shown & set(self.names)
        )
        return blended

    def to_coco(self, image_id: int = 1, file_name: str = "") -> dict[str, Any]:
        """The image as a COCO data set of its own: a run-length mask for each cluster in it, as pycocotools reads.

        Categories begin at 1, as those of the server's `format=coco` do: cluster k is category k + 1.
        """
        counts = {run.id: run.counts for run in run_lengths(self.labels, ignored=NO_CLASS)}
        annotations = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": cluster.id + 1,
                "cluster_id": cluster.id,
                "segmentation": {"size": [self.height, self.width], "counts": counts[cluster.id]},
                "area": cluster.pixels,
                "bbox": list(cluster.bbox),
                "iscrowd": 0,
                "score": cluster.confidence,
            }
            for number, cluster in enumerate(self.clusters, 1)
        ]
        return {
            "images": [{"id": image_id, "file_name": file_name, "width": self.width, "height": self.height}],
            "annotations": annotations,
            "categories": [
                {"id": cluster.id + 1, "name": cluster.name, "supercategory": self.model}
                for cluster in sorted(self.clusters, key=lambda cluster: cluster.id)
            ],
        }

    def save(self, path: str | Path, alpha: float = 0.5) -> Path:
        """The file that its suffix names: .png (palette; a pixel's value is its cluster), .npy, .jpg or .webp (the
        overlay), .json (all that the server said). Raises ValueError for another, OSError.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            path.write_bytes(encode_palette(self.labels, self._table()))
        elif suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, self.labels, allow_pickle=False)
        elif suffix in (".jpg", ".jpeg", ".webp"):
            path.write_bytes(encode(self.overlay(alpha), "webp" if suffix == ".webp" else "jpeg"))
        elif suffix == ".json":
            path.write_text(json.dumps(self.document, ensure_ascii=False), encoding="utf-8")
        else:
            raise ValueError(f"{path.name!r}: save as .png, .npy, .jpg, .webp or .json")
        return path

    def _table(self) -> NDArray[np.uint8]:
        """Colors by id, uint8 [256, 3]; black where there is no cluster."""
        table = np.zeros((NO_CLASS + 1, 3), np.uint8)
        for id, color in self.colors.items():
            table[id] = color
        return table

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        Image.fromarray(self.overlay()).save(buffer, "PNG")
        return buffer.getvalue()


def _present(cluster: Mapping[str, Any]) -> Present:
    x, y, width, height = cluster["bbox"]
    return Present(
        id=cluster["id"],
        name=cluster["name"],
        color=cluster["color"],
        pixels=cluster["pixels"],
        fraction=cluster["fraction"],
        bbox=(x, y, width, height),
        confidence=cluster["confidence"],
        hidden=cluster.get("hidden", False),
    )


def _pixels(encoded: Mapping[str, str], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The values of a PNG of one channel, indices where it has a palette; the size is judged before a pixel is held."""
    try:
        png = PngImageFile(io.BytesIO(base64.b64decode(encoded["data"])))
        if png.size == size and png.mode in ("P", "L"):
            return np.array(png, np.uint8)
    except (ValueError, SyntaxError, OSError) as error:
        raise ClientError(f"the server's label map cannot be read: {error}") from error
    raise ClientError(f"the server's label map is a PNG of mode {png.mode} and size {png.size}, not of {size}")


def _parts(value: object) -> Collection[Any]:
    return value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]


def _level(pyramid: object) -> int | None:
    return int(str(pyramid)) if str(pyramid).isdecimal() else None
