"""What people say of clusters, field by field in the order they said it, and what follows from all of it together.

Knows nothing of where it is kept, of bundles or of HTTP.
"""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from models.manifest import HexColor
from models.names import ClusterName
from service.errors import BadOption

log = logging.getLogger("tessera")


class Change(BaseModel):
    """What PATCH may say of a cluster; null takes a change back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClusterName | None = Field(
        default=None,
        description="1 to 80 characters on one line, all of them seen and none that turns text around; null for the"
        " bundle's own",
        examples=["road"],
    )
    color: Annotated[HexColor, BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)] | None = Field(
        default=None, description="#rrggbb; null for the bundle's own", examples=["#404040"]
    )
    hidden: bool | None = Field(default=None, description="true keeps the cluster out of overlay and color")
    merged_into: int | None = Field(
        default=None,
        ge=0,
        le=254,
        description="the id of the cluster that this one becomes in every answer; null undoes it",
    )


Key = tuple[int, str]  # a cluster and a field of Change


class Said(NamedTuple):
    """The value given last to one field of one cluster, None where it was taken back; and when: a number that only
    grows, no time of day."""

    value: str | bool | int | None
    sequence: int


Record = Mapping[Key, Said]


def joined(one: Record, other: Record) -> dict[Key, Said]:
    """Both records; of a field in both, what was said last."""
    both = dict(one)
    for key, said in other.items():
        if key not in both or said.sequence > both[key].sequence:
            both[key] = said
    return both


def newest(record: Record) -> int:
    """The sequence number of what was said last; 0 for nothing."""
    return max((said.sequence for said in record.values()), default=0)


def merged(into: Mapping[int, int], cluster: int, count: int) -> int:
    """Where a cluster's merges lead. Raises BadOption for a target that is not there, or a circle.

    into  the cluster that each merged one of `count` becomes
    """
    path = [cluster]
    while (target := into.get(path[-1])) is not None:
        if target >= count:
            raise BadOption(f"merged_into: no cluster {target}; choose 0 to {count - 1}")
        if target in path:
            circle = " → ".join(str(i) for i in [*path, target])
            raise BadOption(f"merged_into: {circle} is a circle; undo one of these merges first")
        path.append(target)
    return path[-1]


def merges(changes: Mapping[int, Change]) -> dict[int, int]:
    """The cluster that each merged one becomes."""
    return {cluster: change.merged_into for cluster, change in changes.items() if change.merged_into is not None}


def settled(record: Record, count: int) -> dict[int, Change]:
    """What a record comes to for `count` clusters: one and the same on every server, and never a circle.

    Left out, with a word in the log: what is of no such cluster or cannot be, and of merges that contradict each other
    the older one. Fields that only a newer version knows are passed over.
    """
    fields: dict[int, dict[str, Any]] = {}
    into: dict[int, int] = {}
    for (cluster, field), said in sorted(record.items(), key=lambda item: item[1].sequence, reverse=True):
        if said.value is None or field not in Change.model_fields:
            continue
        try:
            if cluster >= count:
                raise BadOption(f"no cluster {cluster}; there are 0 to {count - 1}")
            value = getattr(Change.model_validate({field: said.value}), field)
            if field == "merged_into":
                merged({**into, cluster: value}, cluster, count)
                into[cluster] = value
        except (ValidationError, BadOption) as error:
            log.warning("%s %r of cluster %d is passed over: %s", field, said.value, cluster, str(error).split("\n")[0])
            continue
        fields.setdefault(cluster, {})[field] = value
    return {cluster: Change(**given) for cluster, given in sorted(fields.items())}
