"""Wrong keys, counted for each address: who guesses waits, and learns nothing while it does.

An address that has sent too many is told to wait with every key it has not come in with before, right or wrong; those
that it has come in with go on. A refusal thus says nothing of the key it refuses, and nobody's work stops because a
neighbor behind the same address guesses. Knows nothing of what keys open.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from service.api.client_address import group_of
from service.errors import TooManyWrongKeys, printable

log = logging.getLogger("tessera")

ATTEMPTS = 10
EACH_S = 6.0
_REMEMBERED = 4096


class WrongKeys:
    """Those of one server. Of an address ATTEMPTS are judged at once, and another each EACH_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owed: OrderedDict[str, tuple[float, float]] = OrderedDict()  # attempts, and when they were that many
        self._came_in: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def judge(self, address: str, digest: bytes, *, known: bool) -> None:
        """Called with every key that was sent. Raises TooManyWrongKeys."""
        address = group_of(address)
        if known and (address, digest) in self._came_in:
            self._came_in.move_to_end((address, digest))
            return
        owed = self._attempts(address)
        if owed > ATTEMPTS - 1:
            raise TooManyWrongKeys(
                "too many wrong keys came from this address; keys it has not used before wait",
                reason="wrong_keys",
                retry_after_s=math.ceil((owed - (ATTEMPTS - 1)) * EACH_S),
            )
        if known:
            self._came_in[address, digest] = None
            _shorten(self._came_in)
            return
        self._owed[address] = (owed + 1, self._clock())
        self._owed.move_to_end(address)
        _shorten(self._owed)
        if owed + 1 > ATTEMPTS - 1:
            log.warning("%s has sent %d wrong keys; what else it tries waits", printable(address), ATTEMPTS)

    def _attempts(self, address: str) -> float:
        """Those of an address that time has not forgiven yet."""
        attempts, at = self._owed.get(address, (0.0, 0.0))
        return max(0.0, attempts - (self._clock() - at) / EACH_S)


def _shorten(remembered: OrderedDict[str, tuple[float, float]] | OrderedDict[tuple[str, bytes], None]) -> None:
    """The longest unused goes first."""
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
