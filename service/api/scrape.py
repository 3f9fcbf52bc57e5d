"""One scrape of /metrics: what all servers under the address have counted, whichever of them is asked.

Knows nothing of routes. A worker that does not answer is spoken for by its ledger: its counters stay, its gauges do
not.
"""

import asyncio
import logging

from prometheus_client import Gauge

from service.api.state import AppState
from service.fleet import exposition, ledger
from service.fleet.fleet import Call
from service.scheduling.background import spawn

log = logging.getLogger("tessera")

_LIMIT_S = 2.0  # Prometheus waits ten seconds by default
_TELL_S = 2.0


class Scrape:
    """Of one server, which answers others when they are scraped."""

    def __init__(self, state: AppState) -> None:
        self._state, self._fleet = state, state.fleet
        folder = self._fleet.folder
        self._ledger = None if folder is None else ledger.Ledger(folder, self._fleet.member)
        self._telling: asyncio.Task[None] | None = None
        if len(self._fleet.members) > 1:
            self._answering = Gauge(
                "tessera_workers", "Servers under the address that answered this", registry=state.metrics.registry
            )
        if len(self._fleet.members) > 1 or self._fleet.growing:
            self._fleet.on("metrics", self._told)

    def start(self) -> None:
        """From now on what this server has counted is written down every other second, where it outlives it."""
        if self._ledger is not None:
            self._telling = spawn(self._tell_now_and_then(), "keeping counters")

    def close(self) -> None:
        """All that was counted is written down."""
        if self._telling is not None:
            self._telling.cancel()
            self._own()

    async def text(self) -> str:
        """The metrics of all."""
        registry, fleet = self._state.registry, self._fleet
        if fleet.growing:
            return await self._of_each()
        if len(fleet.members) == 1:
            registry.show()
            return self._state.metrics.text().decode()
        replies = await fleet.ask("metrics", limit_s=_LIMIT_S)
        answers = [reply.answer for reply in replies if reply.answer is not None]
        registry.show([answer["drift"] for answer in answers], [answer["strangers"] for answer in answers])
        self._answering.set(1 + len(answers))
        others = []
        for reply in replies:
            if reply.answer is not None:
                others.append(reply.answer["text"])
            elif fleet.folder is not None:
                others.append(ledger.told(fleet.folder, reply.member))
        return exposition.merged([self._own(), *others])

    async def _of_each(self) -> str:
        """Where servers leave for good, each has series of its own: a sum of theirs would fall when one has left."""
        replies = await self._fleet.ask("metrics", limit_s=_LIMIT_S)
        self._state.registry.show()
        texts = {self._fleet.member: self._own()}
        texts |= {reply.member: reply.answer["text"] for reply in replies if reply.answer is not None}
        return exposition.merged(exposition.labelled(text, "replica", member) for member, text in texts.items())

    async def _told(self, arguments: Call) -> Call:
        self._state.registry.show()
        registry = self._state.registry
        return {"text": self._own(), "drift": registry.drifts(), "strangers": registry.strangers()}

    def _own(self) -> str:
        text = self._state.metrics.text().decode()
        return text if self._ledger is None else self._ledger.tell(text)

    async def _tell_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            self._own()
