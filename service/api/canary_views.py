"""The canary as its routes show it: how often it answered, and how far it agrees with the default, told without labels.

Knows nothing of how it is counted, of other servers.
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from service.api import responses
from service.api.canary_fleet import Everywhere
from service.inference.options import Frozen
from service.repository import agreement as measures
from service.repository.canary import Canary, Mean
from service.repository.registry import Drifts, Registry
from service.repository.served_model import Served

_NOTHING = "no image was compared yet: there is none of the canary's, or the default had no time for it"
_ONE = (
    "every pixel is of one cluster in both models, so that adjusted_rand and normalized_mutual_information say nothing"
)
_ELSEWHERE = Field(description="servers under the same address that did not follow, or are different, and how")


class CanaryOptions(Frozen):
    """What `POST /models/{name}/canary` may be told."""

    share: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="percent of the images of who names no model; absent: TESSERA_CANARY_SHARE, 5 unless it is set",
    )


class CanaryChange(Frozen):
    """What `PATCH /models/canary` may say."""

    share: float = Field(gt=0, le=100, description="percent of the images of who names no model")


class Both(Frozen):
    """A count of the default and of the canary."""

    default: int
    canary: int


class BothNumbers(Frozen):
    """A number of the default and of the canary; null: there is none yet."""

    default: float | None
    canary: float | None


class Latency(Frozen):
    """Of the network's passes over compared images: milliseconds in a batch, without waiting for their turn."""

    passes: int
    mean_ms: float | None
    median_ms: float | None = Field(description="of the latest 256 of each server")


class BothLatencies(Frozen):
    """Of the default's passes, which come when nobody waits, and of the canary's, which come with everybody's."""

    default: Latency
    canary: Latency


class Matched(Frozen):
    """A cluster of the default and the canary's that is its partner."""

    default: int
    default_name: str | None
    canary: int
    canary_name: str | None
    pixels: int = Field(description="that they share")
    iou: float = Field(description="intersection over union, 0 to 1")


class Alone(Frozen):
    """A cluster that occurs and has no partner."""

    id: int
    name: str | None
    pixels: int


class ModelsAgree(Frozen):
    """How alike the label maps of both are, over all pixels of the compared images that hold data."""

    pixels: int
    one_to_one: float = Field(
        description="share of the pixels on which both agree, every cluster with at most one partner (Hungarian)"
    )
    default_read_as_canary: float = Field(
        description="many to one: the same, every cluster of the default read as the canary's that it shares most with"
    )
    canary_read_as_default: float = Field(description="many to one, the other way")
    adjusted_rand: float | None = Field(description="Hubert and Arabie 1985: 1 equal, 0 as by chance")
    normalized_mutual_information: float | None = Field(
        description="mutual information over the arithmetic mean of both entropies, 0 to 1"
    )
    mean_iou: float | None = Field(description="of the matched pairs, each counted once")
    matched: list[Matched]
    default_alone: list[Alone]
    canary_alone: list[Alone]


class CanaryReport(Frozen):
    """The canary that there is, or was last. Counts are of all servers under the address, from the canary's beginning,
    or that of the default which it stands beside."""

    state: Literal["none", "loading", "serving", "failed", "dropped", "promoted"] = Field(
        description="failed: it could not be served; dropped: by a call, or by itself after failures"
    )
    reason: str | None = Field(description="why it failed or was dropped")
    canary: str | None = Field(description="name@digest12")
    default: str | None = Field(description="name@digest12 of the model that it is compared with")
    share: float = Field(description="percent of the images of who names no model; of what is or comes next")
    since: str | None = Field(description="RFC 3339, by the server's clock")
    answered: Both = Field(description="images of who named no model")
    left: int = Field(
        description="the canary's turn, but it cannot follow the options or read the image; default's too"
    )
    failures: int = Field(description="the canary's turn, but it failed or was late: among the default's answers")
    compared: int = Field(description="images that both networks saw; one that is asked for again counts once")
    skipped: int = Field(description="images of the canary for which the default had no time")
    waiting: int = Field(description="images that are still to be compared, on this server")
    latency: BothLatencies
    margin: BothNumbers = Field(description="mean over the compared images of their mean margins")
    drift: BothNumbers = Field(
        description="distance of the cluster shares from those of training, of all that each answered"
    )
    agreement: ModelsAgree | None
    note: str | None = Field(description="why something is null")
    table: list[list[int]] = Field(description="pixels by the default's cluster (rows) and the canary's (columns)")
    servers: int = Field(description="that are counted together")
    elsewhere: dict[str, str] = _ELSEWHERE


class CanaryStarted(Frozen):
    """The answer of a start, or of another share."""

    canary: str = Field(description="name@digest12")
    share: float
    elsewhere: dict[str, str] = _ELSEWHERE


class Promoted(responses.Loaded):
    """The answer of a promotion: a load's, and what to change for the next start."""

    note: str
    elsewhere: dict[str, str] = _ELSEWHERE


class DroppedCanary(Frozen):
    """The answer of a drop."""

    dropped: str = Field(description="name@digest12")
    default: str = Field(description="name@digest12 of the model that answers who names none")
    note: str
    elsewhere: dict[str, str] = _ELSEWHERE


def report(canary: Canary, registry: Registry, found: Everywhere, waiting: int) -> CanaryReport:
    """What is shown; it may take a while where both have many clusters."""
    trial = found.trial
    agree = measures.agreement(trial.table) if trial else None
    note = None
    if trial and agree is None:
        note = _NOTHING
    elif agree and agree.adjusted_rand is None and agree.mutual_information is None:
        note = _ONE
    served = [_of(registry, ref) for ref in ((trial.default, trial.canary) if trial else (None, None))]
    margins, passes = (trial.margins, trial.passes) if trial else ((Mean(), Mean()), (Mean(), Mean()))
    return CanaryReport(
        state=canary.state,
        reason=canary.reason,
        canary=canary.ref,
        default=trial.default if trial else None,
        share=canary.share,
        since=datetime.fromtimestamp(trial.since, UTC).isoformat(timespec="seconds") if trial else None,
        answered=Both(default=trial.answered[0], canary=trial.answered[1]) if trial else Both(default=0, canary=0),
        left=trial.left if trial else 0,
        failures=trial.failures if trial else 0,
        compared=trial.compared if trial else 0,
        skipped=trial.skipped if trial else 0,
        waiting=waiting,
        latency=BothLatencies(default=_latency(passes[0]), canary=_latency(passes[1])),
        margin=BothNumbers(default=margins[0].mean, canary=margins[1].mean),
        drift=BothNumbers(
            default=_drift(served[0], found.drifts),
            canary=_drift(served[1], found.drifts),
        ),
        agreement=_agree(agree, served[0], served[1]) if agree else None,
        note=note,
        table=trial.table.tolist() if trial else [],
        servers=found.servers,
        elsewhere=found.elsewhere,
    )


def _agree(found: measures.Agreement, default: Served | None, canary: Served | None) -> ModelsAgree:
    return ModelsAgree(
        pixels=found.pixels,
        one_to_one=found.one_to_one,
        default_read_as_canary=found.into_new,
        canary_read_as_default=found.into_old,
        adjusted_rand=found.adjusted_rand,
        normalized_mutual_information=found.mutual_information,
        mean_iou=found.mean_iou,
        matched=[
            Matched(
                default=pair.old,
                default_name=_name(default, pair.old),
                canary=pair.new,
                canary_name=_name(canary, pair.new),
                pixels=pair.pixels,
                iou=pair.iou,
            )
            for pair in found.pairs
        ],
        default_alone=[Alone(id=i, name=_name(default, i), pixels=count) for i, count in found.alone_old.items()],
        canary_alone=[Alone(id=i, name=_name(canary, i), pixels=count) for i, count in found.alone_new.items()],
    )


def _of(registry: Registry, ref: str | None) -> Served | None:
    return next((one for one in registry.served + registry.leaving if one.bundle.ref == ref), None)


def _name(served: Served | None, cluster: int) -> str | None:
    """None once its model is gone."""
    return served.clusters.style.names[cluster] if served else None


def _drift(served: Served | None, elsewhere: list[Drifts]) -> float | None:
    if served is None:
        return None
    ref = served.bundle.ref
    return served.drift.distance([drifts[ref] for drifts in elsewhere if ref in drifts])


def _latency(passes: Mean) -> Latency:
    return Latency(passes=passes.count, mean_ms=passes.mean, median_ms=passes.median)
