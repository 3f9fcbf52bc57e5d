"""Photos, maps and patches as parts of a page.

Knows nothing of runs: pixels, labels and files in, HTML out. Sizes are bounded, whatever a photo's shape.
"""

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from models import palette
from models.io.encode import encode
from models.manifest import Cluster
from models.preprocess import resize
from models.types import Array

_PHOTO_PX = 480 * 360  # of a photo on a page; its long side is bounded too
_THUMB_PX = 200 * 150
_LONGEST_PX = 960
_ALPHA = 0.62  # of the map over the photo: shapes stay visible
_NO_DATA = (128, 128, 128)
_NAMED_SHARE = 0.015  # of a photo's pixels: smaller clusters have no number in the map
_NUMBER_SHARE, _SMALLEST_NUMBER_PX = 1 / 18, 11  # of a map's long side
_LEGEND = 8


def shown_size(height: int, width: int, pixels: int = _PHOTO_PX) -> tuple[int, int]:
    """(H, W) of a photo on a page: of about so many pixels, and never enlarged."""
    scale = min(1.0, math.sqrt(pixels / (height * width)), _LONGEST_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def map_over(photo: Array, labels: Array, clusters: Sequence[Cluster]) -> Array:
    """The photo under its clusters' colors, every larger cluster with its number: uint8 [H, W, 3].

    photo  RGB uint8 [H, W, 3];  labels  uint8 [H, W], ids from K on hold no data
    """
    colors = np.array([_NO_DATA] * 256, np.uint8)
    colors[: len(clusters)] = [palette.from_hex(cluster.color) for cluster in clusters]
    picture = Image.fromarray(palette.overlay(photo, labels, colors, _ALPHA))
    number_px = max(_SMALLEST_NUMBER_PX, round(_NUMBER_SHARE * max(picture.size)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(number_px)
    for k in np.flatnonzero(shares(labels, len(clusters)) >= _NAMED_SHARE):
        x, y = _middle(labels == k)
        x, y = (
            min(max(at, number_px), max(number_px, side - number_px))
            for at, side in zip((x, y), picture.size, strict=True)
        )
        draw.text((x, y), str(k), (255, 255, 255), font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def shares(labels: Array, k: int) -> Array:
    """float64 [K]: of every cluster in the pixels that hold data."""
    counts = np.bincount(labels.ravel(), minlength=256)[:k]
    found: Array = counts / max(1, counts.sum())
    return found


def _middle(mask: Array) -> tuple[int, int]:
    """(x, y) as deep inside the largest connected part as can be."""
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def legend(labels: Array, clusters: Sequence[Cluster]) -> str:
    """The largest clusters of a map, with their colors and shares."""
    found = shares(labels, len(clusters))
    order = [k for k in np.argsort(-found, kind="stable")[:_LEGEND] if found[k] >= _NAMED_SHARE]
    keys = "".join(f"<span>{swatch(clusters[k])}{label(k, clusters)} {found[k]:.0%}</span>" for k in order)
    return f'<p class="legend">{keys}</p>'


def told(labels: Array, clusters: Sequence[Cluster]) -> str:
    """The same in words, for who does not see the map."""
    found = shares(labels, len(clusters))
    order = np.argsort(-found, kind="stable")[:_LEGEND]
    return ", ".join(f"{clusters[k].name} {found[k]:.0%}" for k in order if found[k] >= _NAMED_SHARE)


def swatch(cluster: Cluster) -> str:
    """A square of its color."""
    return f'<i style="background:{cluster.color}"></i>'


def label(k: int, clusters: Sequence[Cluster], most: int = 40) -> str:
    """A cluster's id and name, cut where it is long; a name that only repeats the id is enough by itself. Escaped."""
    name = clusters[k].name
    if name == f"cluster {k}":
        return name
    return escape(f"{k} · {name if len(name) <= most else f'{name[: most - 1]}…'}")


def photo(pixels: Array, alt: str, quality: int = 78) -> str:
    """An image tag that holds RGB uint8 [H, W, 3]."""
    return _tag(encode(np.ascontiguousarray(pixels), "webp", quality), alt, pixels.shape[1], pixels.shape[0])


def small(pixels: Array) -> Array:
    """A photo as a thumbnail."""
    return resize(pixels, shown_size(pixels.shape[0], pixels.shape[1], _THUMB_PX))


def patch(path: Path, alt: str) -> str:
    """An image tag that holds a patch's WebP file."""
    return _tag(path.read_bytes(), alt)


def _tag(webp: bytes, alt: str, width: int = 0, height: int = 0) -> str:
    size = f' width="{width}" height="{height}"' if width else ""
    data = base64.b64encode(webp).decode()
    return f'<img alt="{escape(alt)}"{size} loading="lazy" src="data:image/webp;base64,{data}">'
