"""The canary of one server: a bundle that answers a share of those who name no model, until it is promoted or dropped.

Which images are the canary's, a hash of their bytes says: one image has one model for as long as the canary is there,
on every server that has the same one. A canary that fails is dropped; nobody but the default is ever missed.

Knows nothing of HTTP, of how images are segmented, of other servers.
"""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from prometheus_client import Counter, Gauge

from models.errors import TesseraError
from models.types import Array
from service.errors import NotFound
from service.metrics import Metrics
from service.repository.registry import Added, Registry
from service.repository.served_model import Served

log = logging.getLogger("tessera")

State = Literal["none", "loading", "serving", "failed", "dropped", "promoted"]
FAILURES = 5  # one after the other, and it is dropped
_HASH = 2**64
_NONE = "there is no canary; POST /models/FOLDER/canary starts one, or tessera serve --canary BUNDLE"
_LATEST = 256  # passes of each, whose median is told


class Compared(NamedTuple):
    """One image that both networks saw: how often which ids met int64 [K, K'], and of the default and of the canary the
    mean margin, None where there is none, and the milliseconds of the network's pass, 0 where there was none."""

    table: Array
    margins: tuple[float | None, float | None]
    passes_ms: tuple[float, float]


@dataclass
class Mean:
    """Of so many numbers, with the latest of them."""

    count: int = 0
    total: float = 0.0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, value: float) -> None:
        """One more."""
        self.count, self.total = self.count + 1, self.total + value
        self.latest.append(value)

    @property
    def mean(self) -> float | None:
        """None of nothing."""
        return self.total / self.count if self.count else None

    @property
    def median(self) -> float | None:
        """Of the latest."""
        return float(np.median(self.latest)) if self.latest else None


@dataclass
class Trial:
    """What was counted of one canary beside one default.

    default, canary  refs;  since  seconds since 1970
    answered  images of who named no model, by the default and by the canary
    left      of the default's, those whose options the canary could not follow
    failures  of the default's, those that the canary did not answer
    compared, skipped  of the canary's, those that the default saw as well, and those for which it had no time
    table     int64 [K, K'] over the pixels of all compared images
    margins, passes  means of the compared images', of the default and of the canary; of passes in ms
    run       which of the canaries under this address it is: one that begins again counts anew
    """

    default: str
    canary: str
    table: Array
    since: float = field(default_factory=time.time)
    answered: list[int] = field(default_factory=lambda: [0, 0])
    left: int = 0
    failures: int = 0
    compared: int = 0
    skipped: int = 0
    margins: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))
    passes: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))
    run: int = 0

    @property
    def counts(self) -> tuple[object, ...]:
        """Other ones once anything was counted, or another trial has begun."""
        return self.run, self.since, *self.answered, self.left, self.failures, self.compared, self.skipped

    def add(self, image: Compared) -> None:
        """One more image that both saw."""
        self.compared += 1
        self.table += image.table
        for margins, margin in zip(self.margins, image.margins, strict=True):
            if margin is not None:
                margins.add(margin)
        for passes, ms in zip(self.passes, image.passes_ms, strict=True):
            if ms:
                passes.add(ms)

    def as_json(self) -> dict[str, Any]:
        """For another server."""
        means = {
            name: [[mean.count, mean.total, [*mean.latest]] for mean in getattr(self, name)]
            for name in ("margins", "passes")
        }
        plain = ("default", "canary", "since", "answered", "left", "failures", "compared", "skipped", "run")
        return {"table": self.table.tolist(), **{name: getattr(self, name) for name in plain}, **means}

    @classmethod
    def of_json(cls, said: dict[str, Any]) -> "Trial":
        """Of another server."""
        means = {
            name: tuple(Mean(count, total, deque(latest, _LATEST)) for count, total, latest in said[name])
            for name in ("margins", "passes")
        }
        return cls(**{**said, "table": np.array(said["table"], np.int64), **means})

    def joined(self, others: Iterable["Trial"]) -> "Trial":
        """With what other servers counted of the same two: counts are added, the earliest beginning counts."""
        trials = [self, *others]

        def mean(of: Callable[[Trial], Mean]) -> Mean:
            parts = [of(trial) for trial in trials]
            latest = deque((value for part in parts for value in part.latest), _LATEST * len(parts))
            return Mean(sum(part.count for part in parts), sum(part.total for part in parts), latest)

        return Trial(
            self.default,
            self.canary,
            sum((trial.table for trial in trials[1:]), self.table.copy()),
            min(trial.since for trial in trials),
            [sum(trial.answered[i] for trial in trials) for i in (0, 1)],
            sum(trial.left for trial in trials),
            sum(trial.failures for trial in trials),
            sum(trial.compared for trial in trials),
            sum(trial.skipped for trial in trials),
            (mean(lambda trial: trial.margins[0]), mean(lambda trial: trial.margins[1])),
            (mean(lambda trial: trial.passes[0]), mean(lambda trial: trial.passes[1])),
            self.run,
        )


class Canary:
    """Of one server; on the event loop.

    share    percent of the images of who names no model
    state    none: there never was one; loading, serving; failed: it was never served; dropped, promoted: it has ended
    reason   why it failed or was dropped
    ref, folder  the latest one's
    trial    what was counted of it; kept once it has ended
    run      which of the canaries under this address the latest is
    on_drop  told why a canary was dropped by itself
    """

    def __init__(self, registry: Registry, metrics: Metrics, share: float) -> None:
        self._registry = registry
        self.share = share
        self.state: State = "none"
        self.reason: str | None = None
        self.ref: str | None = None
        self.folder: Path | None = None
        self.trial: Trial | None = None
        self.run = 0
        self.on_drop: Callable[[str], object] = lambda reason: None
        self._served: Served | None = None
        self._failed = 0  # one after the other
        self._salt = b""
        r = metrics.registry
        self._answers = Counter(
            "tessera_canary_answers",
            "Images of who named no model while there was a canary, by who answered: canary or default",
            ["by"],
            registry=r,
        )
        self._failures = Counter(
            "tessera_canary_failures", "Images that the canary did not answer, so that the default did", registry=r
        )
        self._comparisons = Counter(
            "tessera_canary_comparisons",
            "Images of the canary that the default saw too (compared), or had no time for (skipped)",
            ["outcome"],
            registry=r,
        )
        self._agreement = Gauge(
            "tessera_canary_agreement",
            "Share of the compared pixels on which canary and default agree, clusters matched one to one",
            ["model"],
            registry=r,
        )
        metrics.watch("canary_share", "Percent that a canary answers; 0: there is none", lambda: self._share_now())

    @property
    def served(self) -> Served | None:
        """The one that takes images now."""
        served = self._served
        return served if served is not None and served.trouble is None and self._registry.canary is served else None

    async def start(self, folder: Path, share: float, run: int = 0, past: Trial | None = None) -> None:
        """Serve the bundle in a folder as the canary; of the one that is there already, only the share changes.

        past  what the server before this one had counted of the same run, to count on from

        Raises what `Registry.add_canary` raises: then nothing has changed but what is said of the failure.
        """
        self.tend()
        if self._registry.canary is None:
            self.state, self.reason, self.ref, self.trial = "loading", None, None, past
        try:
            served = await self._registry.add_canary(folder)
        except BaseException as error:
            if self.state == "loading":
                told = isinstance(error, TesseraError)
                self.state, self.reason = "failed", str(error) if told else f"it was not loaded: {type(error).__name__}"
                log.error("the canary in %s is not served, the default answers all: %s", folder.name, self.reason)
            raise
        self.share, self.run = share, run
        if served is not self._served or self.state != "serving":
            self._served, self._failed = served, 0
            self._salt = bytes.fromhex(served.bundle.digest)
            self.state, self.reason, self.ref, self.folder = "serving", None, served.bundle.ref, folder
            self._begin(served, past)
        elif self.trial is not None:
            self.trial.run = run
        log.info("%s, the canary, answers %g %% of the images of who names no model", served.bundle.ref, share)

    def remember(self, state: State, reason: str | None, trial: Trial) -> None:
        """Of one that has ended before this server began: what was said and counted of it."""
        self.state, self.reason = state, reason
        self.ref, self.trial, self.run = trial.canary, trial, trial.run

    def set_share(self, share: float) -> None:
        """Have it answer so many percent. Raises NotFound where there is no canary."""
        if self.served is None:
            raise NotFound(_NONE)
        self.share = share
        log.info("%s, the canary, answers %g %% of the images of who names no model", self.ref, share)

    async def promote(self) -> Added:
        """Make it the default; where it is that already nothing is done. Raises what `Registry.promote` raises."""
        if self._registry.canary is None and self.state == "promoted":
            default = self._registry.get(None)
            if default.bundle.ref == self.ref:
                return Added(default, unchanged=True)
        added = await self._registry.promote()
        self._end("promoted", None)
        return added

    def drop(self, reason: str) -> str:
        """Let it go; its ref. Dropped already, nothing is done. Raises NotFound where there was none."""
        served = self._registry.drop_canary()
        if served is not None:
            self._end("dropped", reason)
            log.info("%s, the canary, is dropped: %s", served.bundle.ref, reason)
            return served.bundle.ref
        if self.state != "dropped" or self.ref is None:
            raise NotFound(_NONE)
        return self.ref

    def takes(self, digest: bytes) -> bool:
        """Whether an image, whose bytes have this sha256, is the canary's. With a larger share more are, and those that
        were its own before stay so."""
        number = int.from_bytes(hashlib.sha256(self._salt + digest).digest()[:8])
        return number < self.share / 100 * _HASH

    def answered(self, *, by_canary: bool, left: bool = False) -> None:
        """Count an image of who named no model.

        left  the canary could not follow its options
        """
        if (trial := self.beside()) is not None:
            trial.answered[by_canary] += 1
            trial.left += left
        if by_canary:
            self._failed = 0
        self._answers.labels("canary" if by_canary else "default").inc()

    def failed(self, why: str) -> None:
        """Count an image that it did not answer, and the default did."""
        self._failures.inc()
        if (trial := self.beside() or self.trial) is not None:  # it may have been dropped for it
            trial.failures += 1
        self._failed += 1
        if self._failed == FAILURES and self.served is not None:
            self._drop_itself(f"{FAILURES} images in a row had no answer of it, the last one because {why}")

    def compared(self, image: Compared | None, trial: Trial | None) -> None:
        """Count a comparison begun in `trial`; None: it was skipped."""
        self._comparisons.labels("skipped" if image is None else "compared").inc()
        if trial is None:
            return
        if image is None:
            trial.skipped += 1
        else:
            trial.add(image)

    def show(self, agreement: float | None) -> None:
        """What `tessera_canary_agreement` says; None: nothing."""
        self._agreement.clear()
        if agreement is not None and self._served is not None and self.state == "serving":
            self._agreement.labels(self._served.name).set(agreement)

    def beside(self) -> Trial | None:
        """The trial of now: another one begins where the default has changed. None where there is no canary."""
        served = self.served
        if served is not None and (self.trial is None or self.trial.default != self._registry.served[0].bundle.ref):
            self._begin(served)
        return None if served is None else self.trial

    def tend(self, elapsed_s: float = 0.0) -> None:
        """Look whether it is still there, and works."""
        served, there = self._served, self._registry.canary
        if served is None:
            return
        if there is served and served.trouble is not None:
            self._drop_itself(served.trouble)
        elif there is not served:
            promoted = served in self._registry.served
            self._end("promoted" if promoted else "dropped", None if promoted else "it was unloaded")

    def _drop_itself(self, reason: str) -> None:
        log.error("%s, the canary, is dropped by itself, the default answers all: %s", self.ref, reason)
        self.drop(reason)
        self.on_drop(reason)

    def _begin(self, served: Served, past: Trial | None = None) -> None:
        default = self._registry.served[0]
        if past is not None and (past.default, past.canary) == (default.bundle.ref, served.bundle.ref):
            self.trial = past
        else:
            table = np.zeros((default.clusters.count, served.clusters.count), np.int64)
            self.trial = Trial(default.bundle.ref, served.bundle.ref, table, run=self.run)
        self.show(None)

    def _end(self, state: State, reason: str | None) -> None:
        self.state, self.reason, self._served = state, reason, None
        self.show(None)

    def _share_now(self) -> float:
        return self.share if self.served is not None else 0.0
