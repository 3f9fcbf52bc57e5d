"""Wrong keys, counted for each address: who guesses waits, and learns nothing while it does.

An address that has sent too many is told to wait with every key it has not come in with before, right or wrong; those
that it has come in with go on. A refusal thus says nothing of the key it refuses, and nobody's work stops because a
neighbor behind the same address guesses. Knows nothing of what keys open.
"""

import logging
import math
import time
from collections.abc import Callable

from service.api.client_address import group_of
from service.errors import TooManyWrongKeys, printable
from service.fleet.fleet import Fleet

log = logging.getLogger("tessera")

ATTEMPTS = 10
EACH_S = 6.0
_AGAIN_S = 60.0  # a key that comes in is noted no more often


class WrongKeys:
    """Those of all servers of a fleet. Of an address ATTEMPTS are judged at once, and another each EACH_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, fleet: Fleet | None = None) -> None:
        fleet = fleet or Fleet()
        self._clock = clock
        self._owed = fleet.marks("wrong_keys")  # by address: when all of its attempts are forgiven
        self._came_in = fleet.marks("came_in")  # by address and key: when it came in last

    def judge(self, address: str, digest: bytes, *, known: bool) -> None:
        """Called with every key that was sent. Raises TooManyWrongKeys."""
        address = group_of(address)
        now, came = self._clock(), digest + address.encode()
        if known and (before := self._came_in.get(came)):
            if now - before > _AGAIN_S:
                self._came_in.change(came, lambda _: now)
            return
        owed = (self._owed.get(address.encode()) - now) / EACH_S
        if owed > ATTEMPTS - 1:
            raise TooManyWrongKeys(
                "too many wrong keys came from this address; keys it has not used before wait",
                reason="wrong_keys",
                retry_after_s=math.ceil((owed - (ATTEMPTS - 1)) * EACH_S),
            )
        if known:
            self._came_in.change(came, lambda _: now)
            return
        self._owed.change(address.encode(), lambda forgiven: max(forgiven, now) + EACH_S)
        if owed + 1 > ATTEMPTS - 1:
            log.warning("%s has sent %d wrong keys; what else it tries waits", printable(address), ATTEMPTS)
