"""Which images each caller was answered for lately, by their keys in the cache of what the network says.

Knows nothing of what is kept there, or of whether it still is.
"""

from collections import OrderedDict
from collections.abc import Hashable

_CALLERS, _IMAGES = 256, 64  # who came longest ago is forgotten first


class Lately:
    """Of one server; on the event loop."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, OrderedDict[tuple[Hashable, ...], None]] = OrderedDict()

    def note(self, caller: str, key: tuple[Hashable, ...]) -> None:
        """A caller is answered for an image."""
        keys = self._of.setdefault(caller, OrderedDict())
        self._of.move_to_end(caller)
        keys[key] = None
        keys.move_to_end(key)
        if len(keys) > _IMAGES:
            keys.popitem(last=False)
        if len(self._of) > _CALLERS:
            self._of.popitem(last=False)

    def of(self, caller: str) -> list[tuple[Hashable, ...]]:
        """The keys of a caller's images, the latest first."""
        return list(reversed(self._of.get(caller, ())))
