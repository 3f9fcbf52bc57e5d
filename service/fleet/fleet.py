"""What the servers under one address ask each other: the workers of a host, the replicas of a cluster.

Knows nothing of what is asked, or of HTTP. A call is a name and a JSON object, and so is its answer.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

Call = dict[str, Any]
Handler = Callable[[Call], Awaitable[Call]]


class Reply(NamedTuple):
    """What another server says: its answer, or why there is none."""

    member: str
    answer: Call | None = None
    error: str = ""


class Fleet:
    """A server that is alone. What reaches others inherits from it, and asks them in `ask`.

    member  this server's name among them, "" where it is alone
    """

    member = ""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

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
