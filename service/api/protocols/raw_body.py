"""A dialect's body: whole, within limits, whatever its Content-Type says; empty where that is allowed, or compressed.

Knows nothing of what is in it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from service.api import body, content_encoding
from service.api.dependencies import state_of
from service.api.state import AppState

T = TypeVar("T")
_INLINE_BYTES = 2**18  # work on more than this is worth a thread
_SMALL_BYTES = 2**16


@dataclass(frozen=True)
class RawBody:
    """What came, as it was before it was compressed. Work on it that takes long is done in a thread.

    hold  room for more bytes among all bodies', for as long as the body's own: call it with a count. Raises Busy
    """

    data: bytes
    hold: Callable[[int], None]
    _state: AppState
    _caller: str

    async def parse(self, work: Callable[[bytes], T]) -> T:
        """What some work makes of the bytes. Raises what it raises."""
        return await self.apart(len(self.data), lambda: work(self.data))

    async def apart(self, size: int, work: Callable[[], T]) -> T:
        """What some work makes of so many bytes or pixels. Raises what it raises."""
        return await _apart(self._state, self._caller, size, work)


@asynccontextmanager
async def raw_body(request: Request, caller: str = "", *, small: bool = False) -> AsyncIterator[RawBody]:
    """Around the work with a request's body, whose bytes are counted among all bodies' until the block ends.

    caller  whose work it is
    small   of requests that bring no image: 64 KiB are the most

    Raises BodyTooLarge, BodyTooSlow, UnsupportedEncoding, BadBody, Busy; ClientDisconnect when the client leaves.
    """
    state = state_of(request)
    most = min(_SMALL_BYTES, state.settings.max_body_bytes) if small else state.settings.max_body_bytes
    encoding = content_encoding.encoding_of(request.headers.get("content-encoding", ""))
    with state.runtime.admission.hold() as hold:
        timeout_s = state.settings.body_timeout_s
        data = await body.read(request, hold, max_bytes=most, timeout_s=timeout_s, compressed=True)
        if encoding:
            folded = data
            data = await _apart(state, caller, most, lambda: content_encoding.unfold(folded, encoding, max_bytes=most))
            hold(len(data))
        yield RawBody(data, hold, state, caller)


async def _apart(state: AppState, caller: str, size: int, work: Callable[[], T]) -> T:
    if size <= _INLINE_BYTES:
        return work()
    done: T = (await state.runtime.workers.submit(work, key=caller)).answer
    return done
