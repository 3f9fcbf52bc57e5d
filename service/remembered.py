"""What was found out once, remembered: a small file of JSON, key → what is known of it.

Knows nothing of what it remembers. It is a memory only: unreadable, it remembers nothing; unwritable, it forgets.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.files import write_atomically

log = logging.getLogger("tessera")

_KEPT = 100


class Remembered:
    """Facts in a file, the newest 100.

    what  they are, and what becomes of it where they are not kept: a sentence for the log
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what

    def get(self, key: str) -> dict[str, str]:
        """The texts kept under a key; none where there is nothing."""
        found = self._read().get(key)
        return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}

    def put(self, key: str, fact: Mapping[str, str]) -> None:
        """Writes a fact in one move. Where that cannot be done, it is only logged."""
        facts = self._read()
        facts.pop(key, None)
        facts[key] = dict(fact)
        text = json.dumps(dict(list(facts.items())[-_KEPT:]), indent=1).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, lambda file: file.write(text))
        except OSError as error:
            log.info("%s: %s", self._what, error)

    def _read(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}
