"""Numbers of which servers under one address have a common total: what is inside, of all and of one name.

Here are those of a server that is alone; `page.py` has those of workers that share memory. Knows nothing of what is
counted.
"""

from collections import OrderedDict
from collections.abc import Callable

_TINY = 1e-6  # sums of fractions do not end at 0 by themselves
_REMEMBERED = 4096


class Count:
    """One number of this server; `own` is it, `total` that of all servers."""

    def __init__(self) -> None:
        self.own = 0.0

    @property
    def total(self) -> float:
        return self.own

    @property
    def highest(self) -> float:
        """Of all servers' numbers."""
        return self.own

    def set(self, value: float) -> None:
        """From now on this server's is another."""
        self.own = value

    def add(self, more: float) -> None:
        """This server's is so much more."""
        self.set(self.own + more)

    def reserve(self, more: float, most: float, alone: float | None = None) -> bool:
        """Adds where the total stays within `most`; whether it did.

        alone  what of this server's number is then of whoever asks: where nothing else is there, it fits

        Added first and then looked at, so that of two servers never both take the last place.
        """
        self.add(more)
        total = self.total
        if more <= 0 or total <= most or (alone is not None and total - alone < _TINY):
            return True
        self.add(-more)
        return False


class Tally:
    """Whole numbers by name, such as each client's connections. Names with none are forgotten."""

    def __init__(self) -> None:
        self._own: dict[str, int] = {}

    def total(self, name: str) -> int:
        """Of all servers."""
        return self._own.get(name, 0)

    def add(self, name: str, more: int) -> None:
        """This server's is so many more."""
        if count := self._own.get(name, 0) + more:
            self._own[name] = count
        else:
            self._own.pop(name, None)

    def reserve(self, name: str, most: int) -> bool:
        """Adds one where the total stays within `most`; whether it did."""
        self.add(name, 1)
        if self.total(name) <= most:
            return True
        self.add(name, -1)
        return False


class Marks:
    """A number above 0 by name, the same on all servers; whoever has been changed longest ago is forgotten first."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, float] = OrderedDict()

    def get(self, name: bytes) -> float:
        """0 for one that nobody has marked, or that is forgotten."""
        return self._of.get(name, 0.0)

    def change(self, name: bytes, change: Callable[[float], float]) -> None:
        """What `change` makes of it, which no other server changes meanwhile."""
        self._of[name] = change(self.get(name))
        self._of.move_to_end(name)
        while len(self._of) > _REMEMBERED:
            self._of.popitem(last=False)

    def __len__(self) -> int:
        return len(self._of)
