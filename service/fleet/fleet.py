"""What the servers under one address ask each other: the workers of a host, the replicas of a cluster.

Knows nothing of what is asked, or of HTTP. A call is a name and a JSON object, and so is its answer.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import TesseraError
from service.fleet.counts import Count, Marks, Tally

log = logging.getLogger("tessera")

Call = dict[str, Any]
Handler = Callable[[Call], Awaitable[Call]]


class Reply(NamedTuple):
    """What another server says: its answer, or why there is none."""

    member: str
    answer: Call | None = None
    error: str = ""


class Fleet:
    """A server that is alone. What reaches others inherits from it, and asks them in `ask`.

    member   this server's name among them, "" where it is alone
    members  the names of all, its own included
    late     whether others serve already while this server starts: it opens its door once it is ready itself
    folder   where the workers of one host keep what outlives one of them, and ends with all; None: there is none
    growing  others join and leave for good while it serves: `members` does not know them
    """

    member = ""
    members: tuple[str, ...] = ("",)
    late = False
    folder: Path | None = None
    growing = False

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    async def start(self) -> None:
        """From now on others reach this server."""

    async def close(self) -> None:
        """They do not any more."""

    def leave(self) -> None:
        """This server has ended its work, and its process ends next."""

    def on(self, call: str, handler: Handler) -> None:
        """From now on `handler` answers a call when another server makes it."""
        assert call not in self._handlers, call
        self._handlers[call] = handler

    async def answer(self, call: str, arguments: Call) -> Call:
        """What this server answers to another's call. Raises KeyError where nobody handles it."""
        return await self._handlers[call](arguments)

    async def ask(self, call: str, arguments: Call | None = None, *, limit_s: float = 5.0) -> list[Reply]:
        """What every other server says, in order of their names, those included that fail or take longer."""
        return []

    @asynccontextmanager
    async def one_at_a_time(self, what: str) -> AsyncIterator[None]:
        """Around what only one of all servers may do at once, such as to change the models of all."""
        yield

    def under_way(self, what: str) -> bool:
        """Whether some server is at it now."""
        return False

    def keep(self, what: str, value: Any) -> None:
        """Have a server that is started anew find this value (`kept`), JSON, until all of them end."""

    def kept(self, what: str) -> Any:
        """What was kept last; None where nothing was."""
        return None

    def count(self, name: str) -> Count:
        """A number of this server, and its total over all."""
        return Count()

    def tally(self, name: str) -> Tally:
        """The same by names."""
        return Tally()

    def marks(self, name: str) -> Marks:
        """Numbers by names that are the same on all servers."""
        return Marks()

    async def replied(self, message: Call) -> Call:
        """The message that answers another's: {"answer": …} or {"error": a sentence}."""
        try:
            call, arguments = str(message["call"]), dict(message["arguments"])
            if call not in self._handlers:
                return {"error": f"it knows no call {call[:100]!r}"}
            return {"answer": await self.answer(call, arguments)}
        except TesseraError as error:
            return {"error": str(error)}
        except Exception as error:
            log.exception("a call of another server failed")
            return {"error": f"{type(error).__name__}; its log tells more"}


def reply_of(member: str, message: Call) -> Reply:
    """The reply in another server's message."""
    if isinstance(answer := message.get("answer"), dict):
        return Reply(member, answer)
    return Reply(member, error=str(message.get("error") or "its answer is none"))
