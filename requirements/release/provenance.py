"""Where the files of a release come from, as an in-toto statement with SLSA's predicate; and their digests.

Knows nothing of how they were built. The same commit and tools give the same statement: no time of day is in it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:tessera:make-release:1"
SUMS = "SHA256SUMS"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def statement(
    artifacts: list[Path],
    *,
    commit: str,
    epoch: int,
    parameters: dict[str, Any],
    materials: list[Path],
    tools: dict[str, str],
    trials: list[dict[str, str]],
) -> dict[str, Any]:
    """The statement on these artifacts.

    epoch       SOURCE_DATE_EPOCH of the build, in seconds
    parameters  what who asked for the release chose
    materials   files of the commit that say what is installed: the lock files
    tools       name → version of what built and checked
    trials      what was done with the artifacts, on which Python: `run`, or only `resolved`
    """
    return {
        "_type": STATEMENT,
        "subject": [_described(path) for path in sorted(artifacts)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": parameters,
                "internalParameters": {"SOURCE_DATE_EPOCH": epoch},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    *({**_described(path), "name": f"requirements/{path.name}"} for path in sorted(materials)),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILD, "version": dict(sorted(tools.items()))},
                "metadata": {"tessera_trials": trials},  # SLSA: VENDOR_FIELD is an extension
            },
        },
    }


def write(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def write_sums(folder: Path, files: list[Path]) -> Path:
    """SHA256SUMS, as `sha256sum --check` reads it."""
    path = folder / SUMS
    path.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in sorted(files)))
    return path


def _described(path: Path) -> dict[str, Any]:
    return {"name": path.name, "digest": {"sha256": sha256(path)}}
