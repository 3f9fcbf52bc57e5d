"""What a bundle's clusters are called and how they look, with what people changed about them.

Knows nothing of HTTP or of files, and runs no network. What people changed is in the state folder's `ChangeStore`; when
a newer bundle of the same name takes this one's place, it follows to the clusters that are clearly the same
(`cluster_matching.py`).
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from models import hierarchy, palette, similarity
from models.bundle import Bundle
from models.types import Array
from service.errors import BadOption, NotFound, NotKept
from service.formats.result import ClusterStyle
from service.repository.change_store import ChangeStore, Kept, PreviousNames
from service.repository.cluster_changes import Change, Key, Record, Said, joined, merged, merges, newest, settled
from service.repository.cluster_matching import Fingerprint, Match, Pair
from service.repository.database import READ_S

log = logging.getLogger("tessera")

NEIGHBORS = 3
_ANY_TWO = 0.5  # height of what is as alike as two clusters are on average, by belonging


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


class ClusterState(NamedTuple):
    """One moment of a bundle's clusters: what was changed, and how they look with it."""

    changes: Mapping[int, Change]
    style: ClusterStyle


class Clusters:
    """The clusters of one bundle, with what is said of them in the store: `refresh` looks there.

    state  as of the last look;  style  its style;  known  whether the store had anything of this very bundle then
    """

    def __init__(self, bundle: Bundle, store: ChangeStore) -> None:
        self._bundle = bundle
        self._store = store
        self._kept = Kept()
        self._unkept: Record = {}  # shown, and not in the store: what followed, or was there before the store was lost
        self._borrowed: Record = {}  # shown, and no change of this bundle: what `borrow` brought
        self._show({})

    @property
    def ref(self) -> str:
        """The bundle whose they are, as name@digest12."""
        return self._bundle.ref

    @property
    def count(self) -> int:
        """K."""
        return len(self._bundle.manifest.clusters)

    @property
    def known(self) -> bool:
        return self._kept.sequence > 0

    @property
    def persistent(self) -> bool:
        """Whether all that is shown is kept and, as far as is known, the next change will be."""
        return self._store.writable and not self._unkept

    def check(self, cluster: int) -> int:
        """The same id. Raises NotFound when the bundle has no such cluster."""
        if not 0 <= cluster < self.count:
            raise NotFound(f"no cluster {cluster}: {self._bundle.ref} has 0 to {self.count - 1}")
        return cluster

    async def refresh(self, limit_s: float = READ_S) -> ClusterState:
        """Show what is kept now, whichever server it came to; where the store cannot say, what was known stays.

        What is shown and not kept is written, if that can be done now.
        """
        with suppress(NotKept):
            kept = await self._store.look(self._bundle.digest, self._kept, limit_s)
            if self._shown_beside(kept):
                if self._store.writable:
                    self._take(await self._store.update(self._bundle, lambda kept, _: self._together(kept)))
            elif kept is not self._kept:
                self._take(kept)
        return self.state

    async def patch(
        self, cluster: int, change: Change, precondition: Callable[[ClusterState], None] | None = None
    ) -> ClusterState:
        """Keep a change, and show it from now on; what is returned is what it made of the clusters.

        precondition  is asked in a thread, before anything is written, and refuses by raising

        Raises NotFound, BadOption for a merge that leads nowhere, NotKept, and what `precondition` raises: then nothing
        has changed.
        """
        self.check(cluster)

        def work(kept: Kept, number: int) -> Record:
            record = joined(self._together(kept), self._borrowed)
            number = max(number, newest(record) + 1)
            changes = settled(record, self.count)
            said = {field: getattr(change, field) for field in change.model_fields_set}
            changed = {**changes, cluster: changes.get(cluster, Change()).model_copy(update=said)}
            merged(merges(changed), cluster, self.count)
            if precondition is not None:
                precondition(self._state_of(changes))
            return {**record, **{(cluster, field): Said(value, number) for field, value in said.items()}}

        try:
            kept = await self._store.update(self._bundle, work)
        except NotKept as error:
            raise NotKept(
                f"cluster {cluster} is as it was: the change could not be kept ({error}). Try again, or have the"
                " operator set TESSERA_STATE to a folder that can be written, with room"
            ) from None
        self._take(kept)
        return self.state

    @property
    def past(self) -> PreviousNames:
        """All of this, for the bundle that comes next. `record` is another object after every change."""
        fingerprint = Fingerprint(self._bundle.centroids, self._bundle.golden)
        return PreviousNames(self._bundle.ref, self._unkept or self._kept.record, fingerprint)

    async def before(self) -> PreviousNames | None:
        """What was last kept of another bundle with this one's name; None where there is nothing. Raises NotKept."""
        return await self._store.before(self._bundle)

    def borrow(self, past: PreviousNames, match: Match) -> None:
        """Show what was said of the matched clusters of another bundle, without keeping it: until `follow`, or until
        somebody changes a cluster here, and so means what they see."""
        self._borrowed = _carried(past.record, match)[0]
        self._show(self._unkept or self._kept.record)

    async def follow(self, past: PreviousNames, match: Match) -> TransferReport:
        """Take over and keep what was said of the matched clusters of an older bundle.

        What was kept of this very bundle stays where it was said later, or no old cluster is matched. Where it cannot
        be written it is shown all the same, and written once that can be done.
        """
        came, report = _carried(past.record, match)
        self._borrowed = {}

        def work(kept: Kept, number: int) -> Record:
            record = joined(self._together(kept), came)
            into = merges(settled(record, self.count))
            contradicted = {
                key: Said(None, max(number, newest(record)) + 1)
                for key, said in record.items()
                if key[1] == "merged_into" and said.value is not None and key[0] not in into
            }
            return record | contradicted

        try:
            self._take(await self._store.update(self._bundle, work))
        except NotKept as error:
            log.error("%s: names and colors follow but are not kept yet: %s", self._bundle.ref, error)
            self._unkept = work(self._kept, 0)
            self._show(self._unkept)
        return report

    def table(self, k: int | None, *, merged: bool = True) -> Array:
        """uint8 [K]: the id every cluster gets in an answer with k clusters; merges by hand come first, if they count.

        Raises BadOption when the hierarchy has no such level.
        """
        becomes = self.style.becomes if merged else np.arange(self.count, dtype=np.uint8)
        if k is None or k == self.count:
            return becomes
        if k not in self.levels:
            raise BadOption(f"k: {k} is out of range; choose {self.levels[0]} to {self.count} for {self._bundle.ref}")
        level: Array = hierarchy.level(self._bundle.manifest.hierarchy, k, self.count)
        return level[becomes]

    def doubt(self, k: int | None) -> str | None:
        """What whoever asks for k clusters should know of that level; None where nothing speaks against it."""
        manifest = self._bundle.manifest
        merge = next((merge for merge in manifest.hierarchy if merge.k == k), None)
        if merge is None:
            return None
        if manifest.hierarchy_by == "centroids":
            return (
                f"k: the levels of {self._bundle.ref} rank its network's centroids, and may join what does not belong"
                " together; `tessera remeasure BUNDLE --data PHOTOS`, with its training images, gives it better ones"
            )
        if merge.height > _ANY_TWO:
            return (
                f"k: {k} clusters of {self._bundle.ref} join what belongs together no more than any two do (height"
                f" {merge.height:.2f} in /clusters/tree)"
            )
        return None

    @cached_property
    def levels(self) -> list[int]:
        """The numbers of clusters an answer can have, 2..K."""
        return sorted({m.k for m in self._bundle.manifest.hierarchy if m.k >= 2} | {self.count})

    @cached_property
    def neighbors(self) -> list[list[tuple[int, float]]]:
        """For every cluster its three nearest by cosine of the centroids: (id, cosine), best first."""
        return similarity.nearest(self._bundle.centroids, NEIGHBORS)

    def _shown_beside(self, kept: Kept) -> Record:
        """What is shown here and may be missing in the store: another database than before, or an older copy of it."""
        lost = kept.store != self._kept.store or kept.sequence < self._kept.sequence
        return self._unkept or (self._kept.record if lost else {})

    def _together(self, kept: Kept) -> Record:
        return joined(kept.record, self._shown_beside(kept))

    def _take(self, kept: Kept) -> None:
        """Show what is kept from now on."""
        self._kept, self._unkept = kept, {}
        self._show(kept.record)

    def _show(self, record: Record) -> None:
        self.state = self._state_of(settled(joined(record, self._borrowed), self.count))
        self.style = self.state.style

    def _state_of(self, changes: Mapping[int, Change]) -> ClusterState:
        own = self._bundle.manifest.clusters
        said = [changes.get(i, Change()) for i in range(self.count)]
        into = merges(changes)
        style = ClusterStyle(
            names=tuple(c.name or cluster.name for c, cluster in zip(said, own, strict=True)),
            colors=np.stack([palette.from_hex(c.color or cluster.color) for c, cluster in zip(said, own, strict=True)]),
            hidden=frozenset(i for i, c in enumerate(said) if c.hidden),
            becomes=np.array([merged(into, i, self.count) for i in range(self.count)], np.uint8),
        )
        return ClusterState(changes, style)


def _carried(record: Record, match: Match) -> tuple[Record, TransferReport]:
    """A record of the old clusters as one of the new ones they are, and what became of each."""
    came: dict[Key, Said] = {}
    report = TransferReport(match.by, [], [])
    for (old, field), said in record.items():
        pair = match.pairs.get(old)
        if pair is None:
            continue
        value = said.value
        if field == "merged_into" and value is not None:
            if value not in match.pairs:
                continue
            value = match.pairs[int(value)].new
        came[pair.new, field] = Said(value, said.sequence)
    for old in sorted({cluster for (cluster, _), said in record.items() if said.value is not None}):
        name = record.get((old, "name"), Said(None, 0)).value or f"cluster {old}"
        if old not in match.pairs:
            report.lost.append(Dropped(old, str(name), "no cluster is clearly the same"))
            continue
        report.carried.append(match.pairs[old])
        target = record.get((old, "merged_into"), Said(None, 0)).value
        if target is not None and target not in match.pairs:
            why = f"no cluster is clearly {target}, into which it was merged"
            report.lost.append(Dropped(old, str(name), why))
    return came, report
