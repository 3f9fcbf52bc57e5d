"""A finished segmentation as bytes: one function for each output format.

Knows nothing of HTTP, of networks, of where the image came from. To add a format write one function

    @renders("image/x-thing", name="thing")
    def thing(result: SegmentationResult) -> bytes: ...

here and one row in FORMATS of tests/service/formats/test_registry.py: `format=thing`, `Accept: image/x-thing`, the
API description and the error texts know it then.
"""

from collections.abc import Callable, Iterable
from typing import Generic, Literal, NamedTuple, TypeVar

from models.errors import UsageError
from service.errors import BadOption, NotAcceptable
from service.formats.result import SegmentationResult

F = TypeVar("F", bound="Callable[[SegmentationResult], bytes]")
T = TypeVar("T")
Margin = Literal["full", "grid"] | None
_SUFFIXES = {
    "application/json": ".json",
    "application/geo+json": ".geojson",
    "application/geopackage+sqlite3": ".gpkg",
    "application/x-npy": ".npy",
    "application/zip": ".zip",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/tiff": ".tif",
    "image/webp": ".webp",
}
_PLAIN = ("png", "json", "npy", "geojson", "geotiff", "gpkg", "zip")  # all others have their name before the suffix


class Renderer(NamedTuple, Generic[T]):
    """What becomes of a result. A format's is in RENDERERS and gives bytes; a dialect makes its own, of any answer.

    name, media_type, accept  for `format=` and `Accept`
    photo   whether `result.image` is needed
    margin  whether `result.margin` is: at the image's size (`full`), or as small as the network sees it (`grid`)
    georeference  whether `result.georeference` is
    offset  whether its ids are those of `result.stored`, to which `id_offset` is added
    bytes_per_px  that it holds besides the labels, of a large image
    require  raises UsageError where a library that it needs is missing
    """

    render: Callable[[SegmentationResult], T]
    name: str = ""
    media_type: str = "application/json"
    accept: bool = False
    photo: bool = False
    margin: Margin = None
    georeference: bool = False
    offset: bool = False
    bytes_per_px: int = 0
    require: Callable[[], None] | None = None


RENDERERS: list[Renderer[bytes]] = []
OFFLINE: list[Renderer[bytes]] = []  # of formats that commands write besides, and the server does not answer


def renders(
    media_type: str,
    *,
    name: str,
    accept: bool = True,
    photo: bool = False,
    margin: Margin = None,
    georeference: bool = False,
    offset: bool = False,
    bytes_per_px: int = 0,
    require: Callable[[], None] | None = None,
    offline: bool = False,
) -> Callable[[F], F]:
    """Makes a function the renderer of a format.

    accept  whether `Accept: media_type` alone picks it; a type can be picked by one format only
    photo, margin, georeference  what it needs of the result, which is None elsewhere
    offset, bytes_per_px, require  see Renderer
    offline  only commands write it

    Raises ValueError at import when another function has the name and type, or the type's Accept.
    """

    def register(function: F) -> F:
        for other in RENDERERS:
            if other.media_type == media_type and (other.name == name or (accept and other.accept)):
                raise ValueError(f"{media_type} is already what {other.render.__name__}() renders as {other.name}")
        needs = photo, margin, georeference, offset, bytes_per_px, require
        (OFFLINE if offline else RENDERERS).append(Renderer(function, name, media_type, accept, *needs))
        return function

    return register


def names() -> tuple[str, ...]:
    """What `format=` takes, in the order of this file."""
    return tuple(dict.fromkeys(r.name for r in RENDERERS))


def offline_names() -> tuple[str, ...]:
    """What commands take as `--format`."""
    return (*names(), *(renderer.name for renderer in OFFLINE))


def first(name: str) -> Renderer[bytes]:
    """The renderer of a format's first media type, of all that there are."""
    return next(renderer for renderer in (*RENDERERS, *OFFLINE) if renderer.name == name)


def check(names: Iterable[str]) -> None:
    """Raises BadOption for a format that cannot be written here."""
    try:
        for require in (first(name).require for name in names):
            if require is not None:
                require()
    except UsageError as error:
        raise BadOption(str(error)) from None


def suffix(name: str) -> str:
    """What a format's file ends in: `.png`, `.overlay.jpg`. The format's first media type says which kind it is."""
    kind = _SUFFIXES.get(first(name).media_type, ".bin")
    return kind if name in _PLAIN else f".{name}{kind}"


def hint(format: str) -> str:
    """For the name of a picture file that a format gives when asked: how to ask."""
    for renderer in RENDERERS:
        if renderer.accept and renderer.media_type == f"image/{format.lower().replace('jpg', 'jpeg')}":
            return f"; did you mean {renderer.name!r}? format={renderer.name} with Accept: {renderer.media_type}"
    return ""


def choose(format: str | None, accept: str) -> Renderer[bytes]:
    """The renderer for `format=`, or for the Accept header in its absence; json where anything will do.

    A format with several media types gives the one that Accept prefers, else its first. Raises NotAcceptable where
    Accept alone chooses and names only types that no format has; a browser, which names text/html, shows what it gets.
    """
    offered = [r for r in RENDERERS if (r.name == format if format else r.accept)]
    wanted = _preferences(accept)
    for media_type in wanted:
        for renderer in offered:
            if media_type in (renderer.media_type, renderer.media_type.split("/")[0] + "/*"):
                return renderer
        if media_type == "*/*":
            return offered[0]
    if wanted and not format and "text/html" not in wanted:
        types = ", ".join(r.media_type for r in offered)
        raise NotAcceptable(f"Accept names only types that are not answered; there are {types}, or give format=")
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
        if "/" in media_type and 0 < weight <= 1:
            wanted.append((weight, media_type))
    return [media_type for _, media_type in sorted(wanted, key=lambda pair: -pair[0])]
