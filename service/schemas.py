"""What one request may choose and what answers look like: the shapes behind /openapi.json.

Knows nothing of how an answer is made.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.bundle import Merge
from service import render
from service.errors import nearest


class Frozen(BaseModel):
    """Values only; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageOptions(Frozen):
    """What every request with an image may choose; each may come as a query parameter or a multipart field."""

    model: str | None = Field(default=None, max_length=200, description="a bundle's name, or name@digest12")
    depth: Literal["percentile", "minmax", "full"] = Field(
        default="percentile", description="how deeper samples become 8 bits: percentile, minmax or full"
    )
    page: int = Field(default=0, ge=0, le=65535, description="page of a multi-page TIFF, from 0")
    timeout_ms: int | None = Field(
        default=None,
        ge=1,
        description="milliseconds from the last byte of the request; the server's own limit is the most",
    )
    priority: int = Field(
        default=0,
        ge=-10,
        le=10,
        description="-10 to 10: each step goes ahead of one second of waiting, among the caller's own images",
    )


class SimilarOptions(ImageOptions):
    """The options of one `POST /similar`."""

    x: int = Field(ge=0, description="column of the pixel that all others are compared with, from 0")
    y: int = Field(ge=0, description="its row, from 0")
    format: Literal["png", "npy"] = Field(
        default="png", description="png (a heat map: pixel = 127.5 × (cosine + 1)) or npy (float32 cosines)"
    )


class Options(ImageOptions):
    """The options of one `POST /segment`."""

    format: str | None = Field(
        default=None,
        description=f"one of {', '.join(render.names())}; absent, the Accept header chooses, else json",
        json_schema_extra={"enum": [*render.names()]},
    )
    crf: Literal["true", "fast", "false"] = Field(
        default="false", description="true (dense CRF), fast (guided filter) or false: refine along the photo's edges"
    )
    crf_size: Literal["input", "source"] = Field(
        default="input", description="input (the network's size, as the papers do) or source (the photo's own)"
    )
    crf_iterations: int = Field(default=10, ge=1, le=50, description="mean-field steps, 1 to 50")
    crf_bilateral_sxy: float = Field(default=67.0, ge=1, le=500, description="pixels, 1 to 500")
    crf_bilateral_srgb: float = Field(default=3.0, ge=1, le=255, description="color distance, 1 to 255")
    crf_bilateral_compat: float = Field(default=4.0, ge=0, le=100, description="weight, 0 to 100")
    crf_gaussian_compat: float = Field(default=3.0, ge=0, le=100, description="weight, 0 to 100")
    k: int | None = Field(
        default=None, ge=2, le=255, description="how many clusters to tell apart, 2 to the bundle's K"
    )
    alpha: float = Field(default=0.5, ge=0, le=1, description="opacity of the overlay, 0 to 1")
    only: str | None = Field(
        default=None,
        pattern=r"^\d{1,3}(,\d{1,3}){0,254}$",
        description="cluster ids to draw in overlay and color, separated by commas",
    )
    confidence: bool = Field(default=False, description="true or false: add the margin map to the JSON answer")

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in render.names():
            raise ValueError(f"no such format{render.hint(value) or nearest(value.lower(), render.names())}")
        return value

    @field_validator("crf", mode="before")
    @classmethod
    def _truth(cls, value: object) -> object:
        text = str(value).lower()
        return {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}.get(text, text)

    @property
    def refine(self) -> Literal["dense", "fast"] | None:
        """How edges are refined, or None."""
        return {"true": "dense", "fast": "fast", "false": None}[self.crf]

    def drawn(self) -> frozenset[int] | None:
        """The ids of `only`, or None for all."""
        return None if self.only is None else frozenset(int(i) for i in self.only.split(","))


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What each field of a model takes."""
    return {name: field.description or "" for name, field in model.model_fields.items()}


class ImageBody(BaseModel):
    """JSON with one image."""

    image: str = Field(description="base64 of the file; a data: URL is read too")


class ImagesBody(BaseModel):
    """JSON with several images."""

    images: list[str]


class EncodedMap(Frozen):
    """A map of the image's size, as a file in base64."""

    encoding: Literal["png"] = "png"
    data: str


class Present(Frozen):
    """One cluster in one image. `hidden` is there only where it is true."""

    id: int
    name: str
    color: str
    pixels: int
    fraction: float = Field(description="of the image, 0 to 1")
    bbox: tuple[int, int, int, int] = Field(description="x, y, width, height in pixels")
    confidence: float = Field(
        description="mean margin over its pixels, 0 to 1; taken on the patch grid unless confidence=true"
    )
    hidden: bool | None = None


class Segmentation(Frozen):
    """The JSON answer for one image."""

    model: str
    digest: str
    width: int
    height: int
    k: int
    clusters: list[Present] = Field(description="largest first")
    label_map: EncodedMap = Field(description="palette PNG; the value of a pixel is its cluster id")
    confidence_map: EncodedMap | None = Field(
        default=None, description="gray PNG, 0..255 for margins 0..1; when asked for"
    )
    depth_rule: str | None
    refined: bool
    warnings: list[str]
    timings_ms: dict[str, float]


class Problem(BaseModel):
    """RFC 9457; `detail` says what to change."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Segmentations(Frozen):
    """The answer for several images, in their order; one bad image spoils none of the others."""

    results: list[Segmentation | Problem]


class Neighbor(Frozen):
    """Another cluster and the cosine between the two centroids."""

    id: int
    cosine: float


class ClusterInfo(Frozen):
    """One cluster of a bundle."""

    id: int
    name: str
    color: str
    fraction: float = Field(description="share of the training pixels")
    hidden: bool
    merged_into: int | None
    neighbors: list[Neighbor]
    exemplars: list[str]
    centroid: list[float] | None = Field(default=None, description="with include=centroids")


class ClusterList(Frozen):
    """All clusters of a bundle."""

    model: str
    digest: str
    k: int
    levels: list[int]
    clusters: list[ClusterInfo]


class ClusterTree(Frozen):
    """The hierarchy: which clusters become one, in order."""

    model: str
    digest: str
    k: int
    merges: list[Merge]


class ModelInfo(Frozen):
    """One bundle as the server holds it."""

    name: str
    digest: str | None
    state: Literal["ready", "loading", "failed", "leaving"] = Field(
        description="leaving: replaced or unloaded, and still answering what it was asked before"
    )
    default: bool
    method: str | None = None
    k: int | None = None
    engine: str | None = Field(default=None, description="what runs the network, as TESSERA_ENGINE names it")
    provider: str | None = None
    note: str | None = Field(default=None, description="what the engine has to say of itself")
    memory_bytes: int | None = Field(default=None, description="about what the network takes")
    reason: str | None = Field(default=None, description="why it failed")


class ModelList(Frozen):
    """All of them, the default first."""

    models: list[ModelInfo]


class ModelDetail(ModelInfo):
    """With its manifest, and the (H, W) the network has run at."""

    warm_shapes: list[tuple[int, int]] = []
    drift: float | None = Field(
        default=None, description="distance of the served cluster shares from the training shares, 0 to 1"
    )
    manifest: dict[str, Any] | None = None


class LoadOptions(Frozen):
    """What `POST /models/{name}/load` may be told."""

    default: bool = Field(default=False, description="true: it answers who names no model")


class FollowedCluster(Frozen):
    """A cluster whose name, color, hiding or merge went to the cluster of the new model that is clearly the same."""

    old: int
    new: int
    score: float = Field(description="cosine, or intersection over union: 0 to 1")


class LostCluster(Frozen):
    """A cluster of the old model whose changes could not follow."""

    cluster: int
    name: str
    why: str


class Followed(Frozen):
    """What became of the names, colors and merges that people gave the old model's clusters."""

    by: Literal["centroids", "overlap"] = Field(description="how clusters were told to be the same")
    carried: list[FollowedCluster]
    lost: list[LostCluster]


class Loaded(Frozen):
    """The answer of a load."""

    model: ModelInfo
    unchanged: bool = Field(description="this very bundle served already; nothing was done")
    replaced: str | None = Field(description="name@digest12 of the model in whose place it serves")
    followed: Followed | None = Field(description="null where nothing had been changed")


class Unloaded(Frozen):
    """The answer of an unload."""

    unloaded: str = Field(description="name@digest12")
    finishing: int = Field(description="requests it still answers")
    default: str = Field(description="name@digest12 of the model that answers who names none, from now on")


class Health(Frozen):
    """Both probes with what is behind them."""

    live: Literal[True] = True
    ready: bool
    reason: str | None
    models: list[ModelInfo]
    waiting: int
    running: int
    inside: int
    names_kept: bool
    compiled: bool = Field(description="whether the C kernels of the host path run; else numpy does their work, slower")


class ModelQuery(Frozen):
    """Which bundle is meant."""

    model: str | None = Field(default=None, max_length=200, description="a bundle's name, or name@digest12")


class ClustersQuery(ModelQuery):
    """What `GET /clusters` may be asked for besides."""

    include: Literal["centroids"] | None = Field(default=None, description="centroids, to have them in the answer")
