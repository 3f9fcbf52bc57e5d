"""Names and colors as version 0.3 kept them: for every bundle DIGEST.json, and DIGEST.npz, its fingerprint.

Knows nothing of where they are kept from now on. The files stay as they are; damaged ones are moved aside.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from models.files import move_aside
from models.names import cleaned
from service.repository.cluster_changes import Change, Key

log = logging.getLogger("tessera")


class _File(BaseModel):
    """DIGEST.json."""

    bundle: str
    clusters: dict[int, dict[str, Any]]


class LegacyNames(NamedTuple):
    """What one file holds: name@digest12 of its bundle, the values that were set, the fingerprint's .npz."""

    digest: str
    ref: str
    values: dict[Key, str | bool | int]
    fingerprint: bytes | None


def read(folder: Path) -> Iterator[LegacyNames]:
    """All that can be read in a folder, oldest first by the files' times: the only order they have. Raises OSError."""
    files = [file for file in folder.glob("*.json") if re.fullmatch("[0-9a-f]{64}", file.stem)]
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        try:
            yield _read(file)
        except ValidationError as error:
            why = json.loads(error.json(include_url=False))[0]["msg"]
            aside = file
            with suppress(OSError):  # a read-only folder
                aside = move_aside(file)
            log.error(
                "%s is damaged (%s): what it says of names and colors is lost; it lies at %s", file, why, aside.name
            )


def _read(file: Path) -> LegacyNames:
    found = _File.model_validate_json(file.read_bytes())
    values: dict[Key, str | bool | int] = {}
    for cluster, change in found.clusters.items():
        if isinstance(name := change.get("name"), str) and (seen := cleaned(name)) != name:
            log.warning(
                "%s: cluster %d is called %r from now on: some of its name was not seen", file.name, cluster, seen
            )
            change["name"] = seen or None
        for field, value in Change.model_validate(change).model_dump(exclude_none=True).items():
            values[cluster, field] = value
    fingerprint = file.with_suffix(".npz")
    return LegacyNames(file.stem, found.bundle, values, fingerprint.read_bytes() if fingerprint.is_file() else None)
