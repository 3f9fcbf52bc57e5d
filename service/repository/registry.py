"""The model repository of one server: bundles loaded, swapped and put away, each with its network, queue and names.

Knows nothing of HTTP. A bundle is ready when its network has repeated the golden image and has run at the shapes it
declares; until then whatever it replaces goes on, and a bundle that fails changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Gauge

from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import Prediction, segment
from models.preprocess import fit
from models.types import Array
from service.engines import Engine
from service.errors import BadModel, Busy, Conflict, NotFound, NotKept, nearest
from service.metrics import Metrics
from service.repository import cluster_matching
from service.repository.change_store import ChangeStore, PreviousNames
from service.repository.class_store import ClassStore
from service.repository.classes import Classes
from service.repository.cluster_changes import Record
from service.repository.cluster_matching import Match
from service.repository.cluster_names import Clusters, TransferReport
from service.repository.opener import Opener
from service.repository.proving import Prover
from service.repository.recovery import Recovery
from service.repository.served_model import NetworkBatcher, Served
from service.repository.trust import TrustList
from service.repository.verification import network_bytes, read
from service.repository.watched_engine import WatchedEngine
from service.scheduling.background import in_thread, spawn
from service.scheduling.batcher import Reason
from service.scheduling.fair_lock import FairLock
from service.settings import Settings

log = logging.getLogger("tessera")

_SHARE_S = 1.0  # until a change made by another server shows in every answer
_FIRST_LOOK_S = 5.0
Drifts = Mapping[str, tuple[int, Sequence[float]]]  # as JSON has them
Strangers = Mapping[str, tuple[int, float]]
_CANARY_PART = 0.25  # of a request's time, that a canary's network may run: on a CPU everybody waits behind it


class NoBundle(TesseraError):
    """A server without a model to serve."""


class Added(NamedTuple):
    """What a load did: who serves now, the ref it replaced, and what became of that one's names (None: it had none).

    unchanged  the same bundle was there already
    """

    served: Served
    replaced: str | None = None
    followed: TransferReport | None = None
    unchanged: bool = False


class _Opened(NamedTuple):
    """A bundle whose network is there: served before, or passed its golden image, with the share that agreed."""

    served: Served
    agreement: float | None = None


class _Lent(NamedTuple):
    """What a canary shows of the default's names, and of its classes' clusters where both have one name: the default's
    records, and which cluster is which; None: none could be told."""

    default: Served
    match: Match | None
    record: Record | None = None
    of_classes: Record | None = None


class Registry:
    """Loads bundles, hands them out by name, puts them away.

    served   the default first, a canary last;  leaving  replaced or unloaded, finishing what they were asked
    loading  the folder being loaded;  failed  folder name → why it is not served; a failed default stops the server
    loaded   whether all that the settings name was tried
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        open_engine: Callable[[Bundle], Engine] | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._trust = TrustList(settings.trust)
        self._prover = Prover(settings)
        self.served: list[Served] = []
        self.leaving: list[Served] = []
        self.loading: str | None = None
        self.failed: dict[str, str] = {}
        self.loaded = False
        self._opener = Opener(open_engine or self._prover.open, FairLock(), settings.engine_timeout_s)
        self.recovery = Recovery(self, self._opener, self._batcher, metrics)
        self._one_load = asyncio.Lock()
        self._canary: Served | None = None
        self._lent: _Lent | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._changes = ChangeStore(settings.state)
        self._taught = ClassStore(settings.state)
        self._sharing: asyncio.Task[None] | None = None
        self._drift = Gauge(
            "tessera_cluster_drift",
            "Distance of the served cluster shares from the training shares, 0 to 1",
            ["model"],
            registry=metrics.registry,
        )
        self._unfamiliar = Gauge(
            "tessera_unfamiliar_share",
            "Of the served images, how many are less familiar than 98 % of the training images, 0 to 1",
            ["model"],
            registry=metrics.registry,
        )

    async def load(self, models: Sequence[tuple[Path, str]] | None = None) -> None:
        """Load the settings' bundles, the default first. Raises NoBundle where that one cannot be served.

        models  in their place: folders, and the refs of the bundles that have to lie there
        """
        folders = self._settings.bundles if models is None else [folder for folder, _ in models]
        refs = [None] * len(folders) if models is None else [ref for _, ref in models]
        if not folders:
            raise NoBundle("cannot serve: there is no bundle; train one, or name its folder with --bundle")
        if self._sharing is None:
            self._sharing = spawn(self._share(), "changes made by other servers")
        async with self._one_load:
            for i, (folder, ref) in enumerate(zip(folders, refs, strict=True)):
                try:
                    if (await self._add(folder, swap=False, ref=ref)).unchanged and ref is None:
                        self.failed[folder.name] = f"{folder.name} is given twice"
                except TesseraError as error:
                    if i == 0:
                        raise NoBundle(f"cannot serve: {error} ({folder})") from None
        self.loaded = True

    async def add(
        self, folder: Path, *, default: bool = False, agreed: Callable[[Served], Awaitable[None]] | None = None
    ) -> Added:
        """Serve the bundle in a folder, in place of the one that its name finds. One load at a time.

        default  make it the one that answers who names none
        agreed   awaited once it could take its place; what it raises is raised, and nothing has changed

        Raises BadModel, or Conflict for lack of memory: nothing has changed then.
        """
        async with self._one_load:
            added = await self._add(folder, swap=True, agreed=agreed)
            if default and added.served is self.canary:
                return await self._promote()
            if default:
                self.served.remove(added.served)
                self.served.insert(0, added.served)
            return added

    @property
    def names_kept(self) -> bool:
        """Whether what people call clusters, and teach, can be written, as far as is known, and all that is shown has
        been."""
        kept = all(served.clusters.persistent and served.classes.persistent for served in self.served)
        return self._changes.writable and self._taught.writable and kept

    @property
    def canary(self) -> Served | None:
        """The one that answers a share of who names no model; it has no place among the names."""
        return self._canary if self._canary in self.served else None

    @property
    def named(self) -> list[Served]:
        """Those served, but the canary: the default first."""
        return [served for served in self.served if served is not self._canary]

    async def add_canary(self, folder: Path) -> Served:
        """Open the bundle in a folder as the canary, or return the one that it is already. One load at a time.

        What people call the default's clusters shows at those of the canary that are clearly the same, and is not kept.

        Raises Busy, BadModel, and Conflict for lack of memory, where it serves otherwise, or another is the canary.
        """
        async with self._one_load:
            self.get(None)  # raises Busy
            served, agreement = await self._open(folder)
            if agreement is None:
                if served is self.canary:
                    return served
                raise Conflict(f"{served.bundle.ref} serves here already; a canary is a bundle that does not")
            if (other := self.canary) is not None:
                in_thread(served.watched.close, f"closing {served.bundle.ref}")
                raise Conflict(f"{other.bundle.ref} is the canary; promote it or drop it first")
            await served.refresh(limit_s=_FIRST_LOOK_S)
            self.failed.pop(folder.name, None)
            served.watched.longest_s = min(served.watched.longest_s, self._settings.timeout_s * _CANARY_PART)
            served.label = served.bundle.ref
            self._canary, self._lent = served, None
            self.served.append(served)
            await self._lend()
            return served

    def drop_canary(self) -> Served | None:
        """Put the canary away, once it has answered what it was asked; None where there is none."""
        if (canary := self.canary) is not None:
            self.served.remove(canary)
            self.put_away(canary)
        self._canary = None
        return canary

    async def promote(self) -> Added:
        """Make the canary the default, in the place of the one before it where they have one name.

        Raises NotFound where there is none, Conflict where its network is lost.
        """
        async with self._one_load:
            return await self._promote()

    async def remove(self, ref: str) -> Served:
        """Put a bundle away once its last request is answered; the next becomes the default, where it was that.

        Raises NotFound, Busy, and Conflict for the only one.
        """
        async with self._one_load:
            served = self.get(ref)
            if served is self.canary:
                self.drop_canary()
                return served
            if len(self.named) == 1:
                beside = " besides its canary" if self.canary else ""
                raise Conflict(
                    f"{served.bundle.ref} is the only model here{beside}; load another first, or stop the server"
                )
            self.served.remove(served)
            self.put_away(served)
            log.info("%s is unloaded; the default is %s", served.bundle.ref, self.served[0].bundle.ref)
            return served

    def listing(self) -> list[list[str]]:
        """The folder and the ref of every model that is served, the default first; a canary is none of them."""
        return [[str(served.bundle.path), served.bundle.ref] for served in self.named]

    async def keep_to(self, refs: Sequence[str]) -> None:
        """Serve of what is served these alone, in this order; those that are not here are not missed. A canary stays
        one, unless it is among them."""
        async with self._one_load:
            if self.canary is not None and self.canary.bundle.ref in refs:
                await self._promote()
            for served in [served for served in self.named if served.bundle.ref not in refs]:
                if len(self.named) > 1:
                    self.served.remove(served)
                    self.put_away(served)
            order = {ref: place for place, ref in enumerate(refs)}
            self.served.sort(key=lambda served: order.get(served.bundle.ref, len(order)))

    def get(self, ref: str | None) -> Served:
        """The bundle called `name` or `name@digest12`; the default for None. Raises NotFound, Busy.

        To look at it; who lets its network work says `use`.
        """
        if ref is None:
            if self.served:
                return self.served[0]
            raise Busy("no model is ready yet: the server is loading", reason="loading")
        if served := self._find(ref):
            return served
        if not self.loaded:
            raise Busy(f"{ref[:100]!r} is not ready: the server is loading", reason="loading")
        known = [served.name for served in self.served]
        hint = nearest(ref, known) or f"; there is {', '.join(known)}"
        raise NotFound(f"no model {ref[:100]!r}{hint}")

    @contextmanager
    def use(self, ref: str | None) -> Iterator[Served]:
        """What `get` finds, kept until the block ends, whatever is loaded or unloaded meanwhile."""
        with self.hold(self.get(ref)) as served:
            yield served

    @contextmanager
    def hold(self, served: Served) -> Iterator[Served]:
        """The same of one that was got."""
        served.users += 1
        served.idle.clear()
        try:
            yield served
        finally:
            served.users -= 1
            if not served.users:
                served.idle.set()

    async def close(self) -> None:
        """Stop the queues, and give the networks' memory back."""
        self.recovery.close()
        self._prover.close()
        for served in self.served + self.leaving:
            served.idle.set()
        for served in self.served:
            self.put_away(served)
        await asyncio.gather(*self._closing, return_exceptions=True)  # their failures are in the log
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.gather(self._sharing, return_exceptions=True)
        self._changes.close()
        self._taught.close()

    async def refresh(self) -> None:
        """Show what other servers on the state folder changed."""
        for served in list(self.served):
            await served.refresh()
        await self._lend()

    def drifts(self) -> Drifts:
        """What the drift of each model served here is made of, by its ref."""
        return {served.bundle.ref: served.drift.seen() for served in self.served}

    def strangers(self) -> Strangers:
        """What the share of unfamiliar images of each model served here is made of, by its ref."""
        return {served.bundle.ref: served.unfamiliar.seen() for served in self.served}

    def show(self, elsewhere: Sequence[Drifts] = (), strangers: Sequence[Strangers] = ()) -> None:
        """Bring `tessera_model_info`, the drift and its kin up to date: a provider can change while it runs.

        elsewhere, strangers  the `drifts` and `strangers` of other servers under the same address
        """
        self._metrics.model.clear()
        self._drift.clear()
        self._unfamiliar.clear()
        for served in reversed(self.served):  # of two with one name, the one that the name finds is the last word
            self._metrics.model.labels(served.name, served.bundle.digest[:12], served.engine.provider).set(1)
            others = [drifts[served.bundle.ref] for drifts in elsewhere if served.bundle.ref in drifts]
            if (distance := served.drift.distance(others)) is not None:
                self._drift.labels(served.label).set(distance)
            ref = served.bundle.ref
            if (share := served.unfamiliar.share([seen[ref] for seen in strangers if ref in seen])) is not None:
                self._unfamiliar.labels(served.label).set(share)

    async def _share(self) -> None:
        """Every second: show what other servers on the state folder changed, and try again what could not be kept."""
        for store in (self._changes, self._taught):
            with suppress(NotKept):
                await store.probe()
        while True:
            await asyncio.sleep(_SHARE_S)
            try:
                for store in (self._changes, self._taught):
                    if not store.writable:
                        with suppress(NotKept):
                            await store.probe()
                await self.refresh()
            except Exception:
                log.exception("changes made by other servers cannot be looked at")

    def _find(self, ref: str) -> Served | None:
        return next((served for served in self.served if ref in (served.name, served.bundle.ref)), None)

    async def _open(self, folder: Path, ref: str | None = None) -> _Opened:
        self.loading = folder.name
        try:
            bundle = await asyncio.to_thread(read, folder, self._trust)
            if ref not in (None, bundle.ref):
                raise BadModel(f"{bundle.ref} lies there, and not {ref}, which was loaded from it: load it again")
            if (same := self._find(bundle.ref)) is not None:
                return _Opened(same)
            self._afford(bundle)
            watched, agreement = await self._opener.open(bundle)
            return _Opened(self._queue(bundle, watched), agreement)
        except Exception as error:
            if not isinstance(error, TesseraError):  # nobody foresaw it: the log has where it came from
                log.error("%s failed", folder, exc_info=error)
                error = BadModel(f"{folder.name}: it cannot be loaded: {type(error).__name__}; the log tells more")
            log.error("%s is not served: %s", folder, error)
            if isinstance(error, Conflict):  # nothing is wrong with the bundle
                raise
            self.failed[folder.name] = str(error)
            raise BadModel(str(error)) from None
        finally:
            self.loading = None

    async def _add(
        self,
        folder: Path,
        *,
        swap: bool,
        ref: str | None = None,
        agreed: Callable[[Served], Awaitable[None]] | None = None,
    ) -> Added:
        started = time.perf_counter()
        served, agreement = await self._open(folder, ref)
        if agreement is None:
            return Added(served, unchanged=True)
        bundle = served.bundle
        await served.refresh(limit_s=_FIRST_LOOK_S)
        if agreed is not None:
            try:
                await agreed(served)
            except BaseException:
                self.put_away(served)
                raise
        old = next((one for one in self.named if one.name == served.name), None) if swap else None
        followed = await self._follow(served, old)
        await self._classes_follow(served, old)
        self.failed.pop(folder.name, None)
        if old is None:
            self.served.insert(len(self.named), served)
        else:
            self.served[self.served.index(old)] = served
            self.put_away(old)
        log.info(
            "%s: %d clusters by %s on %s, golden image %.1f%%, ready in %.2f s%s",
            bundle.ref,
            len(bundle.manifest.clusters),
            served.engine.name,
            served.engine.provider,
            agreement * 100,
            time.perf_counter() - started,
            f", in place of {old.bundle.ref}" if old else "",
        )
        return Added(served, old.bundle.ref if old else None, followed)

    async def _promote(self) -> Added:
        canary, old = self.canary, self.get(None)
        if canary is None:
            raise NotFound(
                "there is no canary; POST /models/FOLDER/canary starts one, or tessera serve --canary BUNDLE"
            )
        await self._lend()
        match = self._lent and self._lent.match
        followed = await self._follow(canary, old, match) if not canary.trouble else None
        if old.name == canary.name and not canary.trouble:
            await self._classes_follow(canary, old, match)
        if self.canary is not canary or canary.trouble is not None:
            raise Conflict(f"{canary.bundle.ref} has just been lost or dropped; the default is what it was")
        self._canary = None
        canary.watched.longest_s, canary.label = self._settings.engine_timeout_s, canary.name
        self.served.remove(canary)
        if replaced := old.name == canary.name:
            self.served[self.served.index(old)] = canary
            self.put_away(old)
        else:
            self.served.insert(0, canary)
        log.info(
            "%s, the canary, is the default, %s %s",
            canary.bundle.ref,
            "in place of" if replaced else "before",
            old.bundle.ref,
        )
        return Added(canary, old.bundle.ref if replaced else None, followed)

    async def _lend(self) -> None:
        """Show at the canary what people call the default's clusters now."""
        canary, default = self.canary, next(iter(self.served), None)
        if canary is None or default is None:
            return
        past = default.clusters.past
        if self._lent is None or self._lent.default is not default:
            match = None
            try:
                match = await self._matched(canary, past, default)
            except Exception as error:
                log.warning("%s: which of its clusters are the default's cannot be told: %s", canary.bundle.ref, error)
            self._lent = _Lent(default, match)
        match = self._lent.match
        if match is not None and self._lent.record is not past.record:
            canary.clusters.borrow(past, match)
            self._lent = self._lent._replace(record=past.record)
        taught = default.classes.past
        if match is not None and default.name == canary.name and self._lent.of_classes is not taught.record:
            canary.classes.borrow(taught, match)
            self._lent = self._lent._replace(of_classes=taught.record)

    def _afford(self, bundle: Bundle) -> None:
        """Raises Conflict where there is no room for one more network: two of them are held during a swap."""
        most, needed = self._settings.max_model_bytes, network_bytes(bundle)
        held = [(served.bundle.ref, served.nbytes) for served in self.served + self.leaving]
        if sum(nbytes for _, nbytes in held) + needed <= most:
            return
        who = ", ".join(f"{ref} ({_mb(nbytes)})" for ref, nbytes in held) or "nothing"
        raise Conflict(
            f"{bundle.ref} needs about {_mb(needed)}, and of the {_mb(most)} for networks some are held: {who}."
            " Unload one of them, or raise TESSERA_MAX_MODEL_BYTES; a bundle and the one it replaces are held both"
        )

    def _queue(self, bundle: Bundle, watched: WatchedEngine) -> Served:
        try:
            clusters, classes = Clusters(bundle, self._changes), Classes(bundle, self._taught)
        except BaseException:
            in_thread(watched.close, f"closing {bundle.ref}")
            raise
        return Served(bundle, watched, self._batcher(bundle, watched), clusters, classes)

    def _batcher(self, bundle: Bundle, watched: WatchedEngine) -> NetworkBatcher:
        broken = self._metrics.network_failures.labels(bundle.manifest.name, "not_finite")
        return NetworkBatcher(
            watched,
            model=bundle.ref,
            max_batch_size=self._settings.max_batch_size or watched.engine.batch,
            max_batch_mpx=self._settings.max_batch_mpx,
            on_batch=partial(self._batched, bundle),
            on_not_finite=broken.inc,
            every=self._settings.job_every,
        )

    def _batched(self, bundle: Bundle, size: int, reason: Reason) -> None:
        self._metrics.batched(size, reason)
        for served in self.served + self.leaving:
            if served.bundle is bundle:
                served.statistics.batch()

    async def _follow(self, served: Served, old: Served | None, match: Match | None = None) -> TransferReport | None:
        """Let names, colors and merges follow from the bundle before, served or kept; no failure here ends a load.

        match  which cluster is which, where that is known
        """
        clusters = served.clusters
        try:
            past = old.clusters.past if old else None if clusters.known else await clusters.before()
            if past is None or not (past.record or clusters.past.record):
                return None
            match = match or await self._matched(served, past, old)
            followed = await clusters.follow(past, match)
            while old is not None and old.clusters.past.record is not past.record:  # a PATCH came meanwhile
                past = old.clusters.past
                followed = await clusters.follow(past, match)
        except Exception:
            log.exception("%s: names and colors could not follow", served.bundle.ref)
            return None
        log.info("%s: by %s, %d changes follow from %s", clusters.past.ref, match.by, len(followed.carried), past.ref)
        for lost in followed.lost:
            log.warning("%s: %r of %s does not follow: %s", clusters.past.ref, lost.name, past.ref, lost.why)
        return followed

    async def _classes_follow(self, served: Served, old: Served | None, match: Match | None = None) -> None:
        """Let the clusters of classes follow from the bundle before of the same name, likewise."""
        classes = served.classes
        try:
            past = old.classes.past if old else await classes.before()
            if past is None or not (past.record or classes.past.record):
                return
            match = match or await self._matched(served, past, old)
            await classes.follow(past, match)
            while old is not None and old.classes.past.record is not past.record:
                past = old.classes.past
                await classes.follow(past, match)
        except Exception:
            log.exception("%s: clusters of classes could not follow", served.bundle.ref)
            return
        log.info("%s: by %s, clusters of classes follow from %s", served.bundle.ref, match.by, past.ref)

    async def _matched(self, served: Served, past: PreviousNames, old: Served | None) -> Match:
        """Which cluster of a bundle is which of the one before it, that is there or not."""
        also = []
        if old is not None:
            with suppress(TesseraError):  # too busy: the old golden image alone has to do
                also.append((await _labels(old, served.bundle.golden.image), served.bundle.golden.labels))
        bundle, watched = served.bundle, served.watched
        return await self._opener.run(
            lambda: cluster_matching.match(past.fingerprint, bundle, watched, also), bundle, watched
        )

    def put_away(self, served: Served) -> None:
        """Close a bundle that is not handed out any more, once nobody holds it."""
        self.leaving.append(served)

        async def away() -> None:
            try:
                await served.idle.wait()
                served.batcher.close()
                await served.batcher.ended()
                if not served.watched.lost:  # else it still runs, and is closed when that ends
                    await in_thread(served.watched.close, f"closing {served.bundle.ref}")
            finally:
                self.leaving.remove(served)

        task = spawn(away(), f"putting away {served.bundle.ref}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _labels(served: Served, image: Array) -> Array:
    """What a served bundle says of an image, in its turn: uint8 [H, W]."""
    scores = (await served.batcher.predict(fit(image, served.bundle.manifest.input).pixels)).answer.scores[None]
    return segment(served.bundle, lambda pixels, *, code=False: Prediction(scores), image)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MB"
