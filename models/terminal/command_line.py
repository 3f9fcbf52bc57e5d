"""Commands for people to type: in the words they typed, quoted, for the folder they stand in.

Knows nothing of what a command does.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_SCRIPTS = {"train": "train.py", "recluster": "recluster.py", "evaluate": "evaluate.py", "pretrain": "pretrain.py"}
_SEVERAL = ("train", "pretrain")  # what several processes do together


def words(command: str) -> list[str]:
    """How `tessera COMMAND` is to be typed here: `.venv/bin/tessera train`, or `python training/train.py`.

    Whoever began with a script of ours goes on with it; for all others the program stands as it was typed, by its
    name where the shell finds that one under it.
    """
    typed = sys.orig_argv
    script = _script(typed)
    if script is None:
        program = typed[1] if len(typed) > 1 and Path(typed[1]).name == "tessera" else "tessera"
        found = shutil.which("tessera")
        same = found is not None and Path(program).resolve() == Path(found).resolve()
        return ["tessera" if same else program, command]
    python, file = typed[0], typed[script]
    if "TORCHELASTIC_RUN_ID" in os.environ and command in _SEVERAL:  # torchrun started this process
        beside, each = Path(python).with_name("torchrun"), os.environ.get("LOCAL_WORLD_SIZE", "1")
        launcher = str(beside) if Path(python).name != python and beside.is_file() else "torchrun"
        return [launcher, "--nproc-per-node", each, str(Path(file).with_name(_SCRIPTS[command]))]
    if command in _SCRIPTS:
        return [python, *typed[1:script], str(Path(file).with_name(_SCRIPTS[command]))]
    beside = Path(python).with_name("tessera")
    return [str(beside) if Path(python).name != python and beside.is_file() else "tessera", command]


def _script(typed: Sequence[str]) -> int | None:
    """Where in a command one of our scripts stands: after python and its options."""
    for i, word in enumerate(typed[1:], 1):
        if not word.startswith("-"):
            return i if Path(word).name in _SCRIPTS.values() else None
    return None


def command(name: str, *arguments: object) -> str:
    """A command of ours with its arguments, as a shell takes it."""
    return shlex.join([*words(name), *map(str, arguments)])


def again(name: str, *, without: str = "") -> str:
    """The command that runs, once more, with all that was typed behind it, but the option `without`."""
    return command(name, *(word for word in sys.argv[1:] if word != without))
