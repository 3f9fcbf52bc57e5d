"""Which engine was the fastest, remembered: a small file of JSON, key → engine and note.

Knows nothing of engines. It is a memory only: unreadable, it remembers nothing; unwritable, it forgets.
"""

import json
import logging
from pathlib import Path
from typing import Any

from models.files import write_atomically

log = logging.getLogger("tessera")

_KEPT = 100


class SelectionCache:
    """Choices in a file, the newest 100."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> tuple[str | None, str | None]:
        """The engine and the note kept under a key; None and None where there is nothing."""
        found = self._read().get(key)
        if not isinstance(found, dict):
            return None, None
        name, note = found.get("engine"), found.get("note")
        return (name if isinstance(name, str) else None), (note if isinstance(note, str) else None)

    def put(self, key: str, engine: str, note: str) -> None:
        """Writes a choice in one move. Where that cannot be done, it is only logged."""
        choices = self._read()
        choices.pop(key, None)
        choices[key] = {"engine": engine, "note": note}
        newest = dict(list(choices.items())[-_KEPT:])
        text = json.dumps(newest, indent=1).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, lambda file: file.write(text))
        except OSError as error:
            log.info("the choice of an engine is not remembered, it will be measured again: %s", error)

    def _read(self) -> dict[str, Any]:
        try:
            choices = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return choices if isinstance(choices, dict) else {}
