"""What each server counted of the canary, kept where it outlives the process: none goes with a worker that dies.

Once a second, and where something has changed since, a worker keeps its trial under its name. While it is gone the
kept one speaks for it; the worker that is started in its place counts on from there.

Knows nothing of routes, of how other servers are asked.
"""

import asyncio
import logging

from service.fleet.fleet import Fleet
from service.repository.canary import Canary, Trial

log = logging.getLogger("tessera")

_EVERY_S = 1.0


def kept(fleet: Fleet, member: str, run: int) -> Trial | None:
    """What a server has kept last of this run."""
    said = fleet.kept(_name(member))
    return Trial.of_json(said) if said is not None and said["run"] == run else None


class Keeping:
    """Of one server; a server that is alone keeps nothing."""

    def __init__(self, fleet: Fleet, canary: Canary) -> None:
        self._fleet, self._canary = fleet, canary
        self._counts: tuple[object, ...] | None = None
        self._failed = False

    async def run(self) -> None:
        """Keep them from now on."""
        while self._fleet.folder is not None:
            await self.keep()
            await asyncio.sleep(_EVERY_S)

    async def keep(self) -> None:
        """Keep them now, where they are others. Where that fails the log says so, once, and it is tried again."""
        trial = self._canary.beside() or self._canary.trial
        if self._fleet.folder is None or trial is None or trial.counts == self._counts:
            return
        counts, copy = trial.counts, trial.joined([])
        try:
            await asyncio.to_thread(lambda: self._fleet.keep(_name(self._fleet.member), copy.as_json()))
        except OSError as error:
            if not self._failed:
                log.error("what the canary counted cannot be kept for the case that this worker dies: %s", error)
            self._failed = True
        else:
            self._counts, self._failed = counts, False


def _name(member: str) -> str:
    return f"canary-{member}"
