"""manifest.json: the specification of a bundle as pydantic models, unknown keys refused.

Knows nothing of the bundle's other files; `bundle.py` reads them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models import assign
from models.names import ClusterName
from models.preprocess import InputSpec, Normalization

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CodeSpec(_Frozen):
    """What the network's code is: its dimension D, pixels per grid cell, how it meets the centroids.

    interpolation  how scores get from the grid to pixels; `nearest`: one label a patch
    """

    dim: int = Field(ge=1)
    stride: int = Field(ge=1)
    assignment: assign.Assignment
    temperature: float = Field(gt=0)
    interpolation: assign.Interpolation = "bilinear"


class Cluster(_Frozen):
    """One concept: its name, its color, its share of the training pixels (0..1)."""

    name: ClusterName
    color: HexColor
    fraction: float = Field(ge=0, le=1)


class Merge(_Frozen):
    """One step of the hierarchy: `merge` become `into` (the larger of the two); k clusters are left."""

    k: int = Field(ge=1, le=254)
    merge: tuple[int, int]
    into: int
    height: float


class Provenance(_Frozen):
    """Where a bundle comes from, so that it can be made again."""

    tessera: str
    created: str  # ISO 8601, UTC
    recipe: dict[str, Any]
    recipe_sha256: Digest
    seed: int
    images: int = Field(ge=0)
    data: str  # a sentence for people
    data_sha256: Digest
    licence: str  # of the pretrained weights


class Manifest(_Frozen):
    """Everything a reader needs to know before it opens another file."""

    schema_version: Literal[1] = 1
    name: Name
    method: str  # for people; no code branches on it
    input: InputSpec
    normalization: Normalization | None = None  # which the graph does; absent from bundles of 0.3: ImageNet's
    code: CodeSpec
    clusters: tuple[Cluster, ...] = Field(min_length=2, max_length=255)
    hierarchy: tuple[Merge, ...]
    provenance: Provenance
    files: dict[str, Digest]

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
        return self
