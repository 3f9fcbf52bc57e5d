"""`tessera COMMAND …`: finds the command's owner and hands over.

Knows no command itself. Every room registers its own as an entry point in pyproject.toml (group
`tessera.commands`); only the one that was asked for is imported, so serving never meets torch.
"""

from __future__ import annotations

import difflib
import gc
import sys
from importlib.metadata import entry_points

from models.errors import TesseraError


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed with a reason on stderr, 2 wrong usage."""
    commands = {point.name: point for point in entry_points(group="tessera.commands")}
    usage = f"usage: tessera {{{','.join(sorted(commands))}}} …   (tessera COMMAND --help)"
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage)
        return
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"tessera: no command {name!r}{hint}\n{usage}", file=sys.stderr)
        sys.exit(2)
    gc.disable()  # importing leaves no garbage, and looking for it is a quarter of the time
    try:
        command = commands[name].load()
    except ModuleNotFoundError as error:
        print(
            f"tessera {name}: the package {error.name!r} is not installed here; pip install -e '.[training]' brings"
            " what training needs, '.[cpu]' or '.[gpu]' what serving needs",
            file=sys.stderr,
        )
        sys.exit(1)
    gc.freeze()
    gc.enable()
    sys.argv = [f"tessera {name}", *sys.argv[2:]]
    try:
        command()
    except TesseraError as error:
        print(f"tessera {name}: {error}", file=sys.stderr)
        sys.exit(1)
