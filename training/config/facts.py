"""What a run notes of itself while it works, for whoever reads of it afterwards: small JSON files in RUN/cache/facts.

Knows nothing of what is noted. A file that is not there means that nothing was noted: readers leave that part out.
"""

import json
from collections.abc import Mapping
from typing import Any

from models.terminal.progress import say
from training import distributed
from training.config.run import Run, write_text

_WARNINGS = "warnings"


def note(run: Run, name: str, value: Any) -> None:
    """Keeps a value as JSON has them, whole or not at all, in the place of what was noted under that name before."""
    if not distributed.is_main():
        return
    folder = run.cache / "facts"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.json", json.dumps(value, indent=1))


def noted(run: Run, name: str) -> Any:
    """What was noted under a name; None where nothing was, or where it is damaged."""
    try:
        return json.loads((run.cache / "facts" / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def warn(run: Run, stage: str, step: int | None, text: str, option: str) -> None:
    """Says once per stage and text that something goes wrong, and what would help; notes it for the report.

    step    at which it was noticed; None: after the last
    option  of the recipe that would help, as --set takes it
    """
    known: list[Mapping[str, Any]] = noted(run, _WARNINGS) or []
    if any((one["stage"], one["text"]) == (stage, text) for one in known):
        return
    say(run.console, f"warning: {text}; what may help: --set {option}")
    note(run, _WARNINGS, [*known, {"stage": stage, "step": step, "text": text, "option": option}])
