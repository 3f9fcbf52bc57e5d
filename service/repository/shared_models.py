"""The models of all servers under one address: what one of them is asked to load or unload, all do, or none.

Who is asked loads the bundle first, as a server alone does, up to the moment before it takes the other's place. Then
the others do the same. Where all of them have it ready, what is served is written down and all go on to it; where one
has not, all put it away again, and nothing has changed. A server that is started later finds what is written down. One
that waits for the word, and whose asker died before it gave it, looks there as well.

Knows nothing of HTTP, or of how servers reach each other.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path

from service.errors import Conflict
from service.fleet.fleet import Call, Fleet
from service.repository.registry import Added, Registry
from service.repository.served_model import Served

log = logging.getLogger("tessera")

_MODELS = "models"
_READY_S = 600.0  # until the others have it ready
_SETTLE_S = 60.0
_LOOK_S = 1.0


class _Prepared:
    """A bundle that is loaded here for a server which another was asked.

    ready  once it could take its place
    """

    def __init__(self, ref: str, fleet: Fleet) -> None:
        self._ref, self._fleet = ref, fleet
        self.ready = asyncio.Event()
        self._wanted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Future[Added] | None = None

    async def hold(self, served: Served) -> None:
        """Until it is decided. Raises Conflict where it is not to be served."""
        if served.bundle.ref != self._ref:
            raise Conflict(f"{served.bundle.ref} lies there, and not {self._ref}")
        self.ready.set()
        while not self._wanted.done():
            await asyncio.wait([self._wanted], timeout=_LOOK_S)
            if not self._wanted.done() and not self._fleet.under_way(_MODELS):  # the asker has ended
                self.decide(self._fleet.kept(_MODELS) or [])
        if not self._wanted.result():
            raise Conflict(f"{self._ref} is not loaded: not all servers under this address could")

    def decide(self, models: list[list[str]]) -> None:
        """What is served from now on: it, or not."""
        if not self._wanted.done():
            self._wanted.set_result(self._ref in _refs(models))

    async def end(self) -> None:
        """Returns once it serves, or is put away."""
        if self.task is not None:
            with suppress(Exception):  # the registry has told
                await self.task


class SharedModels:
    """Those of one server, and of the others of its fleet."""

    def __init__(self, registry: Registry, fleet: Fleet) -> None:
        self._registry, self._fleet = registry, fleet
        self._prepared: _Prepared | None = None
        fleet.on("prepare_model", self._prepare)
        fleet.on("models", self._settle)

    async def start(self) -> None:
        """Load what the settings say; where others were told otherwise since, what they serve. Raises NoBundle."""
        kept = self._fleet.kept(_MODELS)
        while True:
            await self._registry.load(None if kept is None else [(Path(path), ref) for path, ref in kept])
            if (now := self._fleet.kept(_MODELS)) == kept:
                return
            kept = now
            await self._registry.keep_to(_refs(now))

    async def load(self, folder: Path, *, default: bool = False) -> Added:
        """`Registry.add` on all. Raises what that raises, and Conflict where another server could not."""
        async with self._fleet.one_at_a_time(_MODELS):
            try:
                added = await self._registry.add(folder, default=default, agreed=partial(self._agree, folder))
            except BaseException:
                await self._tell()
                raise
            await self._changed()
            return added

    async def unload(self, ref: str) -> Served:
        """`Registry.remove` on all. Raises what that raises."""
        async with self._fleet.one_at_a_time(_MODELS):
            served = await self._registry.remove(ref)
            await self._changed()
            return served

    async def _agree(self, folder: Path, served: Served) -> None:
        arguments = {"folder": str(folder), "ref": served.bundle.ref}
        replies = await self._fleet.ask("prepare_model", arguments, limit_s=_READY_S)
        if failed := [reply for reply in replies if reply.answer is None]:
            why = "; ".join(f"worker {reply.member}: {reply.error}" for reply in failed)
            raise Conflict(f"{served.bundle.ref} is loaded nowhere, as not all servers under this address can: {why}")

    async def _changed(self) -> None:
        try:
            self._fleet.keep(_MODELS, self._registry.listing())
        except OSError as error:
            log.error("what is served cannot be written down for a worker that is started again: %s", error)
        await self._tell()

    async def _tell(self) -> None:
        for reply in await self._fleet.ask("models", {"models": self._registry.listing()}, limit_s=_SETTLE_S):
            if reply.answer is None:
                log.error("worker %s was not told what is served now: %s", reply.member, reply.error)

    async def _prepare(self, arguments: Call) -> Call:
        await self._settle({"models": self._fleet.kept(_MODELS) or []} if self._prepared else {})
        prepared = self._prepared = _Prepared(arguments["ref"], self._fleet)
        prepared.task = asyncio.ensure_future(self._registry.add(Path(arguments["folder"]), agreed=prepared.hold))
        waiting = asyncio.ensure_future(prepared.ready.wait())
        await asyncio.wait([prepared.task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if prepared.task.done():  # it was here already, or it failed
            self._prepared = None
            prepared.task.result()
        return {}

    async def _settle(self, arguments: Call) -> Call:
        """What is served from now on."""
        models = arguments.get("models", [])
        if (prepared := self._prepared) is not None:
            self._prepared = None
            prepared.decide(models)
            await prepared.end()
        if models:
            await self._registry.keep_to(_refs(models))
        return {}


def _refs(models: list[list[str]]) -> list[str]:
    return [ref for _, ref in models]
