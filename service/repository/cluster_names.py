"""What a bundle's clusters are called and how they look, with what people changed about them.

Knows nothing of HTTP, and runs no network. A change is kept in the state folder under the bundle's digest, so that it
meets the same clusters again after a restart. Beside it lies the bundle's portrait: when a newer bundle of the same
name takes its place, what people changed follows to the clusters that are clearly the same (`cluster_matching.py`).

    DIGEST.json  `_Kept`
    DIGEST.npz   `centroids` float32 [K, D], `image` uint8 [H, W, 3], `labels` uint8 [H, W]: the golden image's
"""

import asyncio
import logging
import os
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from models import hierarchy, palette
from models.bundle import Bundle, Golden
from models.files import write_atomically
from models.manifest import HexColor
from models.types import Array
from service.errors import BadOption, NotFound
from service.formats.result import ClusterStyle
from service.repository.cluster_matching import Fingerprint, Match, Pair

log = logging.getLogger("tessera")

NEIGHBORS = 3


class Change(BaseModel):
    """What PATCH may say of a cluster; null takes a change back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: (
        Annotated[
            str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")
        ]
        | None
    ) = Field(default=None, description="1 to 80 characters on one line; null for the bundle's own")
    color: Annotated[HexColor, BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)] | None = Field(
        default=None, description="#rrggbb; null for the bundle's own"
    )
    hidden: bool | None = Field(default=None, description="true keeps the cluster out of overlay and color")
    merged_into: int | None = Field(
        default=None,
        ge=0,
        le=254,
        description="the id of the cluster that this one becomes in every answer; null undoes it",
    )


class _Kept(BaseModel):
    """The state file."""

    bundle: str
    clusters: dict[int, Change]


class PreviousNames(NamedTuple):
    """What people changed about an older bundle's clusters, and what is needed to find these again."""

    ref: str
    changes: Mapping[int, Change]
    fingerprint: Fingerprint


class Dropped(NamedTuple):
    """A change that could not follow: of which old cluster, what it was called, why."""

    cluster: int
    name: str
    why: str


class TransferReport(NamedTuple):
    """What became of an older bundle's changes: `carried` to the new ids of the pairs, or lost."""

    by: Literal["centroids", "overlap"]
    carried: list[Pair]
    lost: list[Dropped]


class Clusters:
    """The clusters of one bundle. `folder` None, or one that cannot be written, keeps changes in memory.

    persistent  whether changes survive a restart;  known  whether some of this very bundle were found
    """

    def __init__(self, bundle: Bundle, folder: Path | None) -> None:
        self._bundle = bundle
        self._file = folder / f"{bundle.digest}.json" if folder else None
        self._changes: dict[int, Change] = {}
        self.known = False
        self._writing = asyncio.Lock()
        self.persistent = self._file is not None and self._read(self._file)
        self.style = self._view(self._changes)

    @property
    def count(self) -> int:
        """K."""
        return len(self._bundle.manifest.clusters)

    def check(self, cluster: int) -> int:
        """The same id. Raises NotFound when the bundle has no such cluster."""
        if not 0 <= cluster < self.count:
            raise NotFound(f"no cluster {cluster}: {self._bundle.ref} has 0 to {self.count - 1}")
        return cluster

    def change(self, cluster: int) -> Change:
        """What was changed about one cluster."""
        return self._changes.get(cluster, Change())

    async def patch(self, cluster: int, change: Change) -> None:
        """Apply and keep a change. Raises NotFound, or BadOption for a merge that leads nowhere."""
        self.check(cluster)
        async with self._writing:
            said = {name: getattr(change, name) for name in change.model_fields_set}
            changes = {**self._changes, cluster: self.change(cluster).model_copy(update=said)}
            self._follow(changes, cluster)
            await self._take(changes)

    @property
    def past(self) -> PreviousNames:
        """All of this, for the bundle that comes next. `changes` is another object after every change."""
        return PreviousNames(self._bundle.ref, self._changes, Fingerprint(self._bundle.centroids, self._bundle.golden))

    def before(self) -> PreviousNames | None:
        """What was last kept of another bundle with this one's name; None where there is nothing."""
        if self._file is None:
            return None
        name = self._bundle.manifest.name
        others = [file for file in self._file.parent.glob("*.json") if file != self._file]
        for file in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
            try:
                kept = _Kept.model_validate_json(file.read_bytes())
                if kept.bundle.rpartition("@")[0] == name and kept.clusters:
                    with np.load(file.with_suffix(".npz"), allow_pickle=False) as seen:
                        golden = Golden(seen["image"], seen["labels"])
                        return PreviousNames(kept.bundle, kept.clusters, Fingerprint(seen["centroids"], golden))
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                log.warning("%s: names kept in %s cannot follow: %s", self._bundle.ref, file.name, error)
        return None

    async def follow(self, past: PreviousNames, match: Match) -> TransferReport:
        """Take over and keep what was changed about the matched clusters of an older bundle.

        What was kept of this very bundle stays where no old cluster is matched.
        """
        async with self._writing:
            changes = dict(self._changes)
            report = TransferReport(match.by, [], [])
            for old, pair in match.pairs.items():
                changes[pair.new] = past.changes.get(old, Change())
            for old, change in past.changes.items():
                if change == Change():
                    continue
                name = change.name or f"cluster {old}"
                if old not in match.pairs:
                    report.lost.append(Dropped(old, name, "no cluster is clearly the same"))
                    continue
                pair, target = match.pairs[old], change.merged_into
                into = match.pairs[target].new if target in match.pairs else None
                if target is not None and into is None:
                    report.lost.append(Dropped(old, name, f"no cluster is clearly {target}, into which it was merged"))
                changes[pair.new] = change.model_copy(update={"merged_into": into})
                report.carried.append(pair)
            for cluster in sorted(changes):
                try:
                    self._follow(changes, cluster)
                except BadOption:  # a merge that was kept and one that follows, the other way round
                    changes[cluster] = changes[cluster].model_copy(update={"merged_into": None})
            await self._take(changes)
        return report

    def table(self, k: int | None) -> Array:
        """uint8 [K]: the id every cluster gets in an answer with k clusters; merges by hand come first.

        Raises BadOption when the hierarchy has no such level.
        """
        becomes = self.style.becomes
        if k is None or k == self.count:
            return becomes
        if k not in self.levels:
            raise BadOption(f"k: {k} is out of range; choose {self.levels[0]} to {self.count} for {self._bundle.ref}")
        level: Array = hierarchy.level(self._bundle.manifest.hierarchy, k, self.count)
        return level[becomes]

    @cached_property
    def levels(self) -> list[int]:
        """The numbers of clusters an answer can have, 2..K."""
        return sorted({m.k for m in self._bundle.manifest.hierarchy if m.k >= 2} | {self.count})

    @cached_property
    def neighbors(self) -> list[list[tuple[int, float]]]:
        """For every cluster its three nearest by cosine of the centroids: (id, cosine), best first."""
        rows = self._bundle.centroids / np.linalg.norm(self._bundle.centroids, axis=1, keepdims=True).clip(1e-12)
        cosines = np.clip(rows @ rows.T, -1, 1)
        np.fill_diagonal(cosines, -2)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEIGHBORS, self.count - 1)]
        return [[(int(j), round(float(cosines[i, j]), 4)) for j in order[i]] for i in range(self.count)]

    async def _take(self, changes: dict[int, Change]) -> None:
        """Keep changes, and show them from now on."""
        if self.persistent:
            self.persistent = await asyncio.to_thread(self._write, changes)
        self._changes = changes
        self.style = self._view(changes)

    def _follow(self, changes: dict[int, Change], cluster: int) -> int:
        """Where a cluster's merges lead. Raises BadOption for an unknown target or a circle."""
        path = [cluster]
        while (change := changes.get(path[-1])) and change.merged_into is not None:
            target = change.merged_into
            if target >= self.count:
                raise BadOption(f"merged_into: no cluster {target}; choose 0 to {self.count - 1}")
            if target in path:
                circle = " → ".join(str(i) for i in [*path, target])
                raise BadOption(f"merged_into: {circle} is a circle; undo one of these merges first")
            path.append(target)
        return path[-1]

    def _view(self, changes: dict[int, Change]) -> ClusterStyle:
        own = self._bundle.manifest.clusters
        said = [changes.get(i, Change()) for i in range(self.count)]
        return ClusterStyle(
            names=tuple(c.name or cluster.name for c, cluster in zip(said, own, strict=True)),
            colors=np.stack([palette.from_hex(c.color or cluster.color) for c, cluster in zip(said, own, strict=True)]),
            hidden=frozenset(i for i, c in enumerate(said) if c.hidden),
            becomes=np.array([self._follow(changes, i) for i in range(self.count)], np.uint8),
        )

    def _read(self, file: Path) -> bool:
        """Take up what was kept; returns whether changes can be kept from now on."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists():
                changes = _Kept.model_validate_json(file.read_bytes()).clusters
                for cluster in changes:
                    self._follow(changes, self.check(cluster))
                self._changes = changes
                self.known = True
        except (ValidationError, BadOption, NotFound):
            aside = file.with_suffix(".damaged")
            log.error("%s: %s is damaged; moved to %s, names start anew", self._bundle.ref, file, aside.name)
            file.replace(aside)
        except OSError as error:
            self._warn(error)
            return False
        if not os.access(file.parent, os.W_OK):
            self._warn(PermissionError(f"{file.parent} is read-only"))
            return False
        return True

    def _write(self, changes: dict[int, Change]) -> bool:
        """Whether it could be kept."""
        assert self._file is not None
        kept = _Kept(bundle=self._bundle.ref, clusters=changes).model_dump_json(indent=1, exclude_defaults=True)
        fingerprint = self._file.with_suffix(".npz")
        image, labels = self._bundle.golden
        try:
            if not fingerprint.exists():
                centroids = self._bundle.centroids

                def write(file: IO[bytes]) -> None:
                    np.savez_compressed(file, centroids=centroids, image=image, labels=labels)

                write_atomically(fingerprint, write, durable=True)
            write_atomically(self._file, lambda file: file.write(kept.encode()), durable=True)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: OSError) -> None:
        log.warning(
            "%s: names and colors given with PATCH stay in memory and are lost at a restart (%s);"
            " set TESSERA_STATE to a folder that can be written",
            self._bundle.ref,
            error,
        )
