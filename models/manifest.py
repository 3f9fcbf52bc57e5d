"""manifest.json: the specification of a bundle as pydantic models, unknown keys refused.

Knows nothing of the bundle's other files; `bundle.py` reads them.
"""

import json
import math
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from models import assign
from models.familiarity import share_less_sure
from models.names import ClusterName
from models.preprocess import InputSpec, Normalization

MAX_FILES = 8192
MAX_MAP_BYTES = 2**31  # of scores and code, for the largest image
_MAX_CONTAINERS = 20_000  # lists and objects of the whole: each takes far more memory than it has bytes
_MAX_RECIPE_VALUES, _MAX_RECIPE_DEPTH, _MAX_TEXT = 10_000, 16, 4096
_INT64 = 2**63

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TreeBy = Literal["belonging", "centroids"]
HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of bounded size, of nothing but texts, flags, finite numbers, lists and objects."""
    level: list[Any] = [recipe]
    values = 0
    for _ in range(_MAX_RECIPE_DEPTH):
        values += len(level)
        if values > _MAX_RECIPE_VALUES:
            raise ValueError(f"a recipe holds at most {_MAX_RECIPE_VALUES} values")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(part for pair in value.items() for part in pair)
            elif isinstance(value, list | tuple):
                inner.extend(value)
            elif isinstance(value, str):
                if len(value) > _MAX_TEXT:
                    raise ValueError(f"a recipe's texts have at most {_MAX_TEXT} characters")
            elif not (value is None or (isinstance(value, int | float) and _bounded(value))):
                raise ValueError(
                    "a recipe holds texts, flags, finite numbers, whole ones of 64 bits, and lists of them"
                )
        if not inner:
            return recipe
        level = inner
    raise ValueError(f"a recipe is at most {_MAX_RECIPE_DEPTH} deep")


def _bounded(number: float) -> bool:
    return -_INT64 <= number < _INT64 if isinstance(number, int) else math.isfinite(number)


ShortText = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CodeSpec(_Frozen):
    """What the network's code is: its dimension D, pixels per grid cell, how it meets the centroids.

    interpolation  how scores get from the grid to pixels; `nearest`: one label a patch
    """

    dim: int = Field(ge=1, le=4096)
    stride: int = Field(ge=1, le=1024)
    assignment: assign.Assignment
    temperature: float = Field(ge=1e-4, le=1e4)
    interpolation: assign.Interpolation = "bilinear"


class Cluster(_Frozen):
    """One concept: its name, its color, its share of the training pixels (0..1)."""

    name: ClusterName
    color: HexColor
    fraction: float = Field(ge=0, le=1)


class Merge(_Frozen):
    """One step of the hierarchy: `merge` become `into` (the larger of the two); k clusters are left.

    height  how far apart the two are: see Manifest.hierarchy_by
    """

    k: int = Field(ge=1, le=254)
    merge: tuple[int, int]
    into: int
    height: float = Field(ge=-1e9, le=1e9)


class Provenance(_Frozen):
    """Where a bundle comes from, so that it can be made again."""

    tessera: ShortText
    created: ShortText  # ISO 8601, UTC
    recipe: Annotated[dict[str, Any], AfterValidator(_plain)]
    recipe_sha256: Digest
    seed: int = Field(ge=-_INT64, lt=_INT64)
    images: int = Field(ge=0, lt=_INT64)
    data: Text  # a sentence for people
    data_sha256: Digest
    licence: Text  # of the pretrained weights


class Familiarity(_Frozen):
    """How sure the network was of its training images (`models.familiarity.Tally.sureness`), in a few numbers.

    quantiles  2 to 1001 of them, evenly spaced from the least sure image to the surest: 0..1, none below the one before
    threshold  0..1: an image that is less sure is unlike the training images; 2 % of them are
    """

    quantiles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=2, max_length=1001)
    threshold: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(later < before for before, later in pairwise(self.quantiles)):
            raise ValueError("quantiles ascend: none is below the one before")
        return self

    def of(self, sureness: float) -> float:
        """The share of the training images that were less sure, 0 to 1."""
        return share_less_sure(sureness, self.quantiles)


class Manifest(_Frozen):
    """Everything a reader needs to know before it opens another file.

    hierarchy_by  what the heights of the hierarchy are. `belonging`: how little the clusters that are joined belong
                  together (training/discovery/belonging.py), 0..1 and never falling: 0 the same thing, 0.5 as alike as
                  two of its clusters are on average. `centroids`: cosine distances of the network's centroids, 0..2,
                  which may join what does not belong together; so it is where the key is absent, as in bundles written
                  before it was there, and in those made without images.
    """

    schema_version: int = Field(default=1, ge=1, le=1)  # a literal would take `true`
    name: Name
    method: ShortText  # for people; no code branches on it
    input: InputSpec
    normalization: Normalization | None = None  # which the graph does; absent from bundles of 0.3: ImageNet's
    code: CodeSpec
    clusters: tuple[Cluster, ...] = Field(min_length=2, max_length=255)
    hierarchy: tuple[Merge, ...] = Field(max_length=254)
    hierarchy_by: TreeBy = "centroids"
    familiarity: Familiarity | None = None  # absent where no image was measured, and from bundles of 0.3
    provenance: Provenance
    files: dict[str, Digest] = Field(max_length=MAX_FILES)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [cluster.name for cluster in self.clusters]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two clusters are called {doubled[0]!r}: names are unique")
        total = sum(cluster.fraction for cluster in self.clusters)
        if abs(total - 1) > 1e-3:
            raise ValueError(f"the clusters' fractions sum to {total:.4f}, not to 1")
        alive = set(range(len(self.clusters)))
        for merge in self.hierarchy:
            a, b = merge.merge
            if a == b or not {a, b} <= alive or merge.into not in (a, b):
                raise ValueError(f"hierarchy: cannot merge {a} and {b} into {merge.into} at k = {merge.k}")
            alive.discard(b if merge.into == a else a)
            if merge.k != len(alive):
                raise ValueError(f"hierarchy: k = {merge.k} where {len(alive)} clusters are left")
        if len(alive) > 2:
            raise ValueError(f"the hierarchy stops at {len(alive)} clusters; it has to reach 2")
        if self.hierarchy_by == "belonging":
            heights = [0.0, *(merge.height for merge in self.hierarchy), 1.0]
            if heights != sorted(heights):
                raise ValueError("hierarchy: heights by belonging are 0..1 and never fall")
        height, width = self.input.largest
        cells = height * width / self.code.stride**2
        if (needed := 4 * cells * (len(self.clusters) + self.code.dim)) > MAX_MAP_BYTES:
            raise ValueError(
                f"scores and code of an image of {width}×{height}, the largest of this input, take {needed / 2**30:.0f}"
                f" GiB; {MAX_MAP_BYTES // 2**30} are taken"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what absence says as well: older readers refuse keys they do not know."""
        written: dict[str, Any] = write(self)
        if self.hierarchy_by == "centroids":
            written.pop("hierarchy_by", None)
        if self.familiarity is None:
            written.pop("familiarity", None)
        return written


def parse(raw: bytes) -> Manifest:
    """The manifest that a file holds, types as JSON has them. Raises ValueError with one sentence, naming the place."""
    if raw.count(b"[") + raw.count(b"{") > _MAX_CONTAINERS:
        raise ValueError(f"it holds more than {_MAX_CONTAINERS} lists and objects")
    try:
        manifest = Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first["loc"]) or "manifest"
        raise ValueError(f"{where}: {first['msg']}") from None
    json.loads(raw, object_pairs_hook=_once, parse_constant=_no_number)
    return manifest


def _once(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if doubled := len(keys) - len(set(keys)):
        again = next(key for key in keys if keys.count(key) > 1) if len(keys) < 1000 else f"{doubled} keys"
        raise ValueError(f"{again[:60]!r} stands twice in one object")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
