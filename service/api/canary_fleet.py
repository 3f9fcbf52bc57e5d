"""One canary on all servers under an address: what is done on one is done on the others, what each counted is added up.

Every server opens the bundle by itself, so that one on which it fails goes on without. Knows nothing of routes.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from models.errors import TesseraError
from service.api import canary_counts, loading
from service.api.state import AppState
from service.errors import NotFound
from service.fleet.fleet import Call, Reply
from service.repository.canary import Trial
from service.repository.registry import Added, Drifts
from service.scheduling.background import spawn

log = logging.getLogger("tessera")

_MODELS = "models"  # as `shared_models` keeps them; one server at once changes those of all
_KEPT = "canary"
_OPEN_S = 300.0  # to open and prove a bundle
_COUNT_S = 3.0


class Everywhere(NamedTuple):
    """What all servers counted: `trial` of this one with those of the `servers` that have the same two models, the kept
    ones of those that are gone included; what is different elsewhere, by the server's name; `drifts` of the others."""

    trial: Trial | None
    drifts: list[Drifts]
    servers: int
    elsewhere: dict[str, str]


def listen(state: AppState) -> None:
    """Answer what other servers ask of this one."""
    canary, fleet = state.canary, state.fleet

    async def start(said: Call) -> Call:
        folder = await asyncio.to_thread(loading.folder_of, state.settings.models, said["folder"])
        await canary.start(folder, said["share"], said["run"])
        return {}

    async def share(said: Call) -> Call:
        canary.set_share(said["share"])
        return {}

    async def promote(said: Call) -> Call:
        try:
            await canary.promote()
        except NotFound:  # here it had failed, or was dropped
            await state.registry.add(Path(said["folder"]), default=True)
        return {}

    async def drop(said: Call) -> Call:
        canary.drop(said["reason"])
        return {}

    async def counted(said: Call) -> Call:
        canary.tend()
        trial = canary.beside() or canary.trial
        return {
            "state": canary.state,
            "reason": canary.reason,
            "trial": trial and trial.as_json(),
            "drift": state.registry.drifts(),
        }

    def dropped(reason: str) -> None:
        _end(state)
        said = {"reason": f"another server dropped it: {reason}"}
        spawn(fleet.ask("canary/drop", said), "dropping the canary everywhere")

    for handler in (start, share, promote, drop, counted):
        fleet.on(f"canary/{handler.__name__}", handler)
    canary.on_drop = dropped


async def begin(state: AppState) -> None:
    """The canary that the settings name, or the one that the other servers have by now. Where it cannot be served the
    log says so, and /models/canary."""
    kept = state.fleet.kept(_KEPT)
    folder, share, run = state.settings.canary, state.settings.canary_share, 0
    if kept is not None:
        folder, share, run = kept["folder"] and Path(kept["folder"]), kept["share"], kept["run"]
    state.canary.run = run
    past = canary_counts.kept(state.fleet, state.fleet.member, run)
    if folder is not None:
        with suppress(TesseraError):
            await state.canary.start(folder, share, run, past)
    elif kept is not None and past is not None:
        state.canary.remember(kept["state"], kept["reason"], past)


async def start(state: AppState, folder: str, share: float) -> dict[str, str]:
    """The bundle in a folder under TESSERA_MODELS becomes the canary; of the one that is, only the share changes.

    Returns why it could not be done elsewhere, by the server's name. Raises what `loading.folder_of` and `Canary.start`
    raise: then nothing was done.
    """
    path = await asyncio.to_thread(loading.folder_of, state.settings.models, folder)
    async with state.fleet.one_at_a_time(_MODELS):
        run = state.canary.run + (state.canary.served is None)
        await state.canary.start(path, share, run)
        state.fleet.keep(_KEPT, {"folder": str(path), "share": share, "run": run})
        said = {"folder": folder, "share": share, "run": run}
        return _failures(await state.fleet.ask("canary/start", said, limit_s=_OPEN_S))


async def set_share(state: AppState, share: float) -> dict[str, str]:
    """The same for the share alone. Raises NotFound where there is no canary."""
    async with state.fleet.one_at_a_time(_MODELS):
        state.canary.set_share(share)
        state.fleet.keep(_KEPT, {"folder": str(state.canary.folder), "share": share, "run": state.canary.run})
        return _failures(await state.fleet.ask("canary/share", {"share": share}))


async def promote(state: AppState) -> tuple[Added, dict[str, str]]:
    """It becomes the default. Raises what `Canary.promote` raises: then nothing was done."""
    async with state.fleet.one_at_a_time(_MODELS):
        added = await state.canary.promote()
        _end(state)
        state.fleet.keep(_MODELS, state.registry.listing())
        said = {"folder": str(added.served.bundle.path)}
        return added, _failures(await state.fleet.ask("canary/promote", said, limit_s=_OPEN_S))


async def drop(state: AppState, reason: str) -> tuple[str, dict[str, str]]:
    """It is let go; its ref comes first. Raises NotFound where there was none."""
    async with state.fleet.one_at_a_time(_MODELS):
        ref = state.canary.drop(reason)
        _end(state)
        return ref, _failures(await state.fleet.ask("canary/drop", {"reason": reason}))


async def counted(state: AppState) -> Everywhere:
    """What is known of the latest canary, everywhere."""
    canary = state.canary
    canary.tend()
    own = canary.beside() or canary.trial
    others: list[Trial] = []
    drifts: list[Drifts] = []
    elsewhere: dict[str, str] = {}
    for reply in await state.fleet.ask("canary/counted", limit_s=_COUNT_S):
        said = reply.answer
        trial = Trial.of_json(said["trial"]) if said and said["trial"] else None
        if trial is None and own is not None:  # it died, or is not there yet
            trial = await asyncio.to_thread(canary_counts.kept, state.fleet, reply.member, own.run)
        same = own is not None and trial is not None and (trial.default, trial.canary) == (own.default, own.canary)
        if same and trial is not None:
            others.append(trial)
        if said is None:
            counted_too = "; what it had counted is counted" if same else ""
            elsewhere[reply.member] = reply.error + counted_too
            continue
        if same:
            drifts.append(said["drift"])
        elif own is not None or trial is not None:
            between = f"{trial.canary} beside {trial.default}" if trial else "no canary"
            elsewhere[reply.member] = f"counts {between}"
        if said["state"] != canary.state:
            elsewhere[reply.member] = f"{said['state']}: {said['reason']}" if said["reason"] else said["state"]
    return Everywhere(own.joined(others) if own and others else own, drifts, 1 + len(others), elsewhere)


def _end(state: AppState) -> None:
    """A server that is started anew has no canary, and says of the latest what the others say."""
    canary = state.canary
    ended = {"state": canary.state, "reason": canary.reason}
    state.fleet.keep(_KEPT, {"folder": None, "share": canary.share, "run": canary.run, **ended})


def _failures(replies: list[Reply]) -> dict[str, str]:
    failed = {reply.member: reply.error for reply in replies if reply.answer is None}
    for member, why in failed.items():
        log.error("canary: server %s did not follow: %s", member, why)
    return failed
