"""A finished segmentation as bytes: one function for each output format.

Knows nothing of HTTP, of networks, of where the image came from. To add a format write one function

    @renders("image/x-thing", name="thing")
    def thing(result: Result) -> bytes: ...

here and one row in FORMATS of tests/service/test_render.py: `format=thing`, `Accept: image/x-thing`, the
API description and the error texts know it then.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import orjson

from models import image as images
from models import palette

if TYPE_CHECKING:
    from service.pipeline import Result

F = TypeVar("F", bound="Callable[[Result], bytes]")


class Renderer(NamedTuple):
    """A format: its name for `format=`, its media type for `Accept`, whether it shows the photo, its function."""

    name: str
    media_type: str
    accept: bool
    photo: bool
    render: Callable[[Result], bytes]


RENDERERS: list[Renderer] = []


def renders(media_type: str, *, name: str, accept: bool = True, photo: bool = False) -> Callable[[F], F]:
    """Makes a function the renderer of a format.

    accept  whether `Accept: media_type` alone picks it; a type can be picked by one format only
    photo   whether it needs the image's pixels: `result.image` is None elsewhere

    Raises ValueError at import when another function has the name and type, or the type's Accept.
    """

    def register(function: F) -> F:
        for other in RENDERERS:
            if other.media_type == media_type and (other.name == name or (accept and other.accept)):
                raise ValueError(f"{media_type} is already what {other.render.__name__}() renders as {other.name}")
        RENDERERS.append(Renderer(name, media_type, accept, photo, function))
        return function

    return register


def names() -> tuple[str, ...]:
    """What `format=` takes, in the order of this file."""
    return tuple(dict.fromkeys(r.name for r in RENDERERS))


def hint(format: str) -> str:
    """For the name of a picture file that a format gives when asked: how to ask."""
    for renderer in RENDERERS:
        if renderer.accept and renderer.media_type == f"image/{format.lower().replace('jpg', 'jpeg')}":
            return f"; did you mean {renderer.name!r}? format={renderer.name} with Accept: {renderer.media_type}"
    return ""


def choose(format: str | None, accept: str) -> Renderer:
    """The renderer for `format=`, or for the Accept header in its absence; json when nothing fits.

    A format with several media types gives the one that Accept prefers, else its first.
    """
    offered = [r for r in RENDERERS if (r.name == format if format else r.accept)]
    for media_type in _preferences(accept):
        for renderer in offered:
            if media_type in (renderer.media_type, renderer.media_type.split("/")[0] + "/*"):
                return renderer
        if media_type == "*/*":
            break
    return offered[0]


def _preferences(accept: str) -> list[str]:
    """The media types of an Accept header, most wanted first; what cannot be read is passed over."""
    wanted: list[tuple[float, str]] = []
    for part in accept.split(",")[:32]:
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            continue
        if media_type and 0 < weight <= 1:
            wanted.append((weight, media_type))
    return [media_type for _, media_type in sorted(wanted, key=lambda pair: -pair[0])]


@renders("application/json", name="json")
def json(result: Result) -> bytes:
    """Everything in words and numbers, the label map inside as a palette PNG: `schemas.Segmentation`."""
    started = time.perf_counter()
    height, width = result.labels.shape
    look = result.appearance
    answer: dict[str, Any] = {
        "model": result.model,
        "digest": result.digest,
        "width": width,
        "height": height,
        "k": result.k,
        "clusters": [
            {
                "id": area.id,
                "name": look.names[area.id],
                "color": palette.to_hex(look.colors[area.id]),
                "pixels": area.pixels,
                "fraction": area.pixels / (height * width),
                "bbox": area.bbox,
                "confidence": round(area.confidence, 4),
                **({"hidden": True} if area.id in look.hidden else {}),
            }
            for area in result.areas
        ],
        "label_map": _encoded(png(result)),
    }
    if result.options.confidence and result.margin is not None:
        answer["confidence_map"] = _encoded(images.encode(np.rint(result.margin * 255).astype(np.uint8), "png"))
    encode_ms = (time.perf_counter() - started) * 1000
    answer |= {
        "depth_rule": result.depth_rule,
        "refined": result.refined,
        "warnings": result.warnings,
        "timings_ms": {stage: round(ms, 2) for stage, ms in {**result.timings, "encode": encode_ms}.items()},
    }
    return orjson.dumps(answer)


def _encoded(file: bytes) -> dict[str, str]:
    return {"encoding": "png", "data": base64.b64encode(file).decode()}


@renders("image/png", name="png")
def png(result: Result) -> bytes:
    """Palette PNG: one byte a pixel, the pixel's value is the cluster id."""
    return images.encode_labels(result.labels, result.appearance.colors)


@renders("image/jpeg", name="overlay", photo=True)
def overlay(result: Result) -> bytes:
    """The photo with its clusters' colors over it, as JPEG."""
    return images.encode(_overlaid(result), "jpeg")


@renders("image/webp", name="overlay", photo=True)
def overlay_webp(result: Result) -> bytes:
    """The same picture as WebP."""
    return images.encode(_overlaid(result), "webp")


@renders("image/png", name="color", accept=False)
def color(result: Result) -> bytes:
    """The clusters' colors alone: RGB, or RGBA where some clusters are not drawn."""
    return images.encode(palette.colorize(result.labels, result.appearance.colors, _drawn(result)), "png")


@renders("application/x-npy", name="npy")
def npy(result: Result) -> bytes:
    """numpy's own file: uint8 [H, W] of cluster ids."""
    return _npy(result.labels)


def heat(cosines: images.Array, format: Literal["png", "npy"]) -> bytes:
    """Similarities float32 [H, W], -1..1, as a palette PNG whose colors go from cold to hot, or as numpy's file."""
    if format == "npy":
        return _npy(cosines)
    return images.encode_labels(np.rint((cosines + 1) * 127.5).astype(np.uint8), palette.heat())


def _npy(array: images.Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _overlaid(result: Result) -> images.Array:
    assert result.image is not None
    return palette.overlay(result.image, result.labels, result.appearance.colors, result.options.alpha, _drawn(result))


def _drawn(result: Result) -> frozenset[int] | None:
    """The clusters to draw, None for all: those asked for by name, hidden or not; else all but the hidden."""
    if (only := result.options.drawn()) is not None:
        return frozenset(int(result.table[i]) for i in only)
    hidden = result.appearance.hidden
    return frozenset(range(len(result.appearance.names))) - hidden if hidden else None
