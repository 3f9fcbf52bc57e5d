"""Response models: the shapes of answers, and of JSON bodies, behind /openapi.json.

Knows nothing of how an answer is made.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from models.manifest import TreeBy
from service.inference.options import Frozen, ModelQuery


def _numbers(count: int) -> WithJsonSchema:
    """So many integers, described as every version of OpenAPI can."""
    return WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": count, "maxItems": count})


class ImageBody(BaseModel):
    """JSON with one image."""

    image: str = Field(description="base64 of the file; a data: URL is read too")


class ImagesBody(BaseModel):
    """JSON with several images."""

    images: list[str] = Field(description="base64 of the files; data: URLs are read too")


class PathBody(BaseModel):
    """JSON with a file of the server's."""

    path: str = Field(description="a file below one of the server's TESSERA_ROOTS, or file:// and its path")


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
    fraction: float = Field(
        description="of the image's pixels that are in a cluster, 0 to 1; of all clusters they sum to 1"
    )
    bbox: Annotated[tuple[int, int, int, int], _numbers(4)] = Field(description="x, y, width, height in pixels")
    confidence: float = Field(
        description="mean margin over its pixels, 0 to 1; taken on the patch grid unless confidence=true, or unknown="
    )
    hidden: bool | None = None


class Answered(Frozen):
    """What is said of one image in any JSON answer."""

    model: str
    digest: str
    width: int
    height: int
    k: int = Field(description="how many clusters, or classes, are told apart")
    of: Literal["clusters", "classes"] = Field(description="what the ids are; classes with classes=true")
    valid_fraction: float = Field(description="share of the pixels that hold data, 0 to 1, by what the file says")
    unknown_fraction: float = Field(
        description="share of the pixels that hold data and are of no cluster, as their margins are below unknown="
    )
    pages: int = Field(description="full images in the file; page= picks one")
    orientation: int = Field(description="EXIF's 1 to 8: the turn that was taken to show the image upright")
    depth_rule: str | None
    refined: bool
    familiarity: float | None = Field(
        description="share of the training images that the network was less sure of, 0 to 1; null: not known"
    )
    familiar: bool | None = Field(description="whether the image is like the training images, of which 98 % are")
    warnings: list[str]
    timings_ms: dict[str, float]


class SuggestedPlace(Frozen):
    """A place whose class is decided least clearly."""

    x: int = Field(description="column of the pixel, from 0")
    y: int
    margin: float
    between: Annotated[tuple[int, int], _numbers(2)] = Field(description="the two classes it lies between")


class Segmentation(Answered):
    """The JSON answer for one image."""

    clusters: list[Present] = Field(description="largest first; none where the image holds no data")
    label_map: EncodedMap = Field(description="palette PNG; the value of a pixel is its cluster id, or 255: no data")
    confidence_map: EncodedMap | None = Field(
        default=None, description="gray PNG, 0..255 for margins 0..1; when asked for"
    )
    suggestions: list[SuggestedPlace] | None = Field(
        default=None, description="with classes=true: up to three places to teach next, apart from each other"
    )


class CompressedRuns(Frozen):
    """A mask in COCO's run lengths, column after column, as pycocotools compresses them."""

    size: Annotated[tuple[int, int], _numbers(2)] = Field(description="height, width")
    counts: str


class PresentRuns(Present):
    """One cluster in one image, and where."""

    rle: CompressedRuns


class RunLengths(Answered):
    """The answer with format=rle."""

    clusters: list[PresentRuns] = Field(description="largest first; of the regions that min_area leaves")
    min_area: int


class Coco(Frozen):
    """The answer with format=coco: a data set of one image, as pycocotools reads it."""

    info: dict[str, Any]
    licenses: list[dict[str, Any]]
    images: list[dict[str, Any]] = Field(description="one; its `clusters` are the ids of those present")
    annotations: list[dict[str, Any]] = Field(description="one for each cluster present, with `cluster_id` beside")
    categories: list[dict[str, Any]] = Field(description="ids from 1, with `cluster_id` beside")


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
    default_name: str = Field(description="the bundle's own: what PATCH with null brings back")
    default_color: str
    centroid: list[float] | None = Field(default=None, description="with include=centroids")


class ClusterList(Frozen):
    """All clusters of a bundle."""

    model: str
    digest: str
    k: int
    levels: list[int]
    clusters: list[ClusterInfo]


class MergeStep(Frozen):
    """`merge` become `into`, the larger of the two; k clusters are left."""

    k: int
    merge: Annotated[tuple[int, int], _numbers(2)]
    into: int
    height: float = Field(description="how far apart the two are, as `by` measures it")


class ClusterTree(Frozen):
    """The hierarchy: which clusters become one, in order."""

    model: str
    digest: str
    k: int
    by: TreeBy = Field(
        description="belonging: heights are 0..1, how little two groups belong together: 0 the same thing, 0.5 as alike"
        " as two clusters of this model are on average. centroids: cosine distances of the network's centroids, which"
        " may join what does not belong together; so it is in bundles written before"
    )
    merges: list[MergeStep]


class ModelInfo(Frozen):
    """One bundle as the server holds it."""

    name: str
    digest: str | None
    state: Literal["ready", "loading", "failed", "leaving"] = Field(
        description="leaving: replaced or unloaded, and still answering what it was asked before"
    )
    default: bool
    canary: bool = Field(default=False, description="true: it answers a share of who names no model")
    method: str | None = None
    k: int | None = None
    engine: str | None = Field(default=None, description="what runs the network, as TESSERA_ENGINE names it")
    provider: str | None = None
    note: str | None = Field(default=None, description="what the engine has to say of itself")
    memory_bytes: int | None = Field(default=None, description="about what the network takes")
    reason: str | None = Field(
        default=None, description="why it failed; `digest` is there while a fresh engine is tried"
    )


class ModelList(Frozen):
    """All of them, the default first."""

    models: list[ModelInfo]


class ModelDetail(ModelInfo):
    """With its manifest, and the (H, W) the network has run at."""

    warm_shapes: list[Annotated[tuple[int, int], _numbers(2)]] = Field(default=[])
    drift: float | None = Field(
        default=None, description="distance of the served cluster shares from the training shares, 0 to 1"
    )
    unfamiliar: float | None = Field(
        default=None, description="share of the latest images that are unlike the training images, of which 2 % are"
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


class UnloadedModel(Frozen):
    """The answer of an unload."""

    unloaded: str = Field(description="name@digest12")
    finishing: int = Field(description="requests it still answers")
    default: str = Field(description="name@digest12 of the model that answers who names none, from now on")


class Liveness(Frozen):
    """The process answers."""

    live: Literal[True]


class Readiness(Frozen):
    """Images are answered."""

    ready: Literal[True]


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


class ClustersQuery(ModelQuery):
    """What `GET /clusters` may be asked for besides."""

    include: Literal["centroids"] | None = Field(default=None, description="centroids, to have them in the answer")
