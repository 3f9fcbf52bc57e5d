"""A lock file read: names, versions and hashes.

Knows nothing of where packages come from.
"""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
_PIN = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[A-Za-z0-9.!+]+)"
    r"(?: ; (?P<marker>[^\\#]+?))?(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)
_HASH = re.compile(r"[0-9a-f]{64}")


class Pin(NamedTuple):
    """One line of a lock file; the marker is empty where the pin holds everywhere."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def names() -> list[str]:
    """The lock files, without `.txt`."""
    return sorted(file.stem for file in FOLDER.glob("*.txt"))


def read(lock: str) -> list[Pin]:
    """The pins of requirements/LOCK.txt. ValueError: a line that is no `name==version --hash=sha256:…`."""
    return parse((FOLDER / f"{lock}.txt").read_text(), f"requirements/{lock}.txt")


def parse(text: str, file: str) -> list[Pin]:
    """The pins of a text; `file` is its name in errors. Anything but pins and lines of comment is a ValueError."""
    pins = []
    joined = re.sub(r" \\\n\s+", " ", text)
    for line in joined.splitlines():
        if not line or line.startswith("#"):
            continue
        found = _PIN.fullmatch(line)
        if not found:
            raise ValueError(
                f"{file}: {line[:80]!r} is no `name==version --hash=sha256:…`; `make lock` writes these files"
            )
        pins.append(
            Pin(found["name"], found["version"], found["marker"] or "", frozenset(_HASH.findall(found["hashes"])))
        )
    return pins
