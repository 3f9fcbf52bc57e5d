"""Paths of images: many in little memory, sorted as people number them, and those that could not be used.

Knows nothing of folders or pixels.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Self, overload


@dataclass(frozen=True)
class Skipped:
    """An image or a folder that could not be used, and why."""

    path: Path
    reason: str


class Paths(Sequence[Path]):
    """Paths kept as text and made when they are asked for: a million take a third of what Path objects take."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self.texts = [os.fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> Path: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Path | Self:
        return type(self)(self.texts[at]) if isinstance(at, slice) else Path(self.texts[at])

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, Path) and str(path) in self.texts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(tuple(self.texts))


def natural(name: str) -> bytes:
    """Sort key under which frame_9 comes before frame_10; in the same place a number stands before a letter."""
    key = []
    for part in re.split(r"(\d+)", name.casefold()):
        text = part.encode("utf-8", "surrogatepass")
        if part.isdecimal():
            number = str(int(part)).encode()
            key += [b"\1", bytes([len(number)]), number, text, b"\0"]
        elif part:
            key += [b"\2", text, b"\0"]
    return b"".join(key)


@dataclass(frozen=True)
class Names:
    """What files are called below their folders, with forward slashes; of several folders behind the folder's own name.

    roots  absolute; two of one name get numbers, as "photos" and "photos-2"
    """

    roots: tuple[Path, ...]

    @cached_property
    def _before(self) -> dict[str, str]:
        """Root with a slash → what stands before the names of its files."""
        found: dict[str, str] = {}
        for root in self.roots:
            base, taken = root.name or "data", set(found.values())
            numbered = chain([base], (f"{base}-{number}" for number in count(2)))
            name = next(one for one in numbered if f"{one}/" not in taken)
            found[f"{os.fspath(root).rstrip('/')}/"] = f"{name}/" if len(self.roots) > 1 else ""
        return found

    def __str__(self) -> str:
        return " and ".join(map(str, self.roots))

    def of(self, path: Path) -> str:
        """The name of a file or folder below one of the roots; of another the last part of its path."""
        return self.of_text(os.fspath(path))

    def of_text(self, path: str) -> str:
        """The same of a path as text."""
        home = max((root for root in self._before if path.startswith(root)), key=len, default=None)
        return path.rpartition("/")[2] if home is None else self._before[home] + path[len(home) :]
