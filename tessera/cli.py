"""`tessera COMMAND …`: finds the command's owner and hands over.

Knows what commands there are and nothing else of them; only the one that was asked for is imported, so serving never
meets torch.
"""

import difflib
import gc
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """Where it lives (`module:function`), and what people read of it: a line, and an example to type."""

    owner: str
    line: str
    example: str


COMMANDS = {
    "serve": Command(
        "service.cli:serve",
        "serve bundles over HTTP; the embedded default where none is named",
        "tessera serve --bundle runs/photos/bundle",
    ),
    "segment": Command(
        "service.commands.segment:segment",
        "images in files, folders, patterns and archives → label maps in a tree like theirs",
        "tessera segment photos --out labels --format png,overlay",
    ),
    "train": Command(
        "training.train:main",
        "a folder of unlabelled images → a bundle and a report",
        "tessera train --data photos --out runs/photos",
    ),
    "recluster": Command(
        "training.recluster:main",
        "another number of clusters for a run that is done, in less than a minute",
        "tessera recluster runs/photos --k auto",
    ),
    "remeasure": Command(
        "training.remeasure:main",
        "a bundle's tree of clusters, measured on its training images again",
        "tessera remeasure runs/photos --data photos",
    ),
    "evaluate": Command(
        "training.evaluate:main",
        "a bundle against label maps: mIoU, accuracy, a page",
        "tessera evaluate runs/photos --data photos --labels label-maps",
    ),
    "import": Command(
        "training.import_checkpoint:main",
        "the authors' STEGO, PiCIE or CAUSE checkpoint → a bundle",
        "tessera import cocostuff27_vit_base_5.ckpt --out bundles/stego",
    ),
    "clusters": Command(
        "tessera.commands.clusters:main",
        "what a bundle tells apart: a table, and a contact sheet",
        "tessera clusters runs/photos --html clusters.html",
    ),
    "bench": Command(
        "tessera.commands.bench:main",
        "throughput and latency of a server",
        "tessera bench --url http://localhost:8000 --concurrency 32",
    ),
    "doctor": Command(
        "tessera.commands.doctor:main",
        "what is installed, which engine would run, what is missing",
        "tessera doctor --bundle runs/photos/bundle",
    ),
    "export": Command(
        "tessera.commands.export:main",
        "a bundle's network for geoai and QGIS",
        "tessera export runs/photos --geoai exported",
    ),
    "pull": Command(
        "tessera.commands.hub:pull",
        "a bundle from the Hugging Face Hub, verified by its digest",
        "tessera pull somebody/street --out bundles/street",
    ),
    "push": Command(
        "tessera.commands.hub:push",
        "a bundle to the Hugging Face Hub, with a page of its clusters",
        "tessera push runs/photos/bundle somebody/street --private",
    ),
    "mcp": Command(
        "tessera.commands.mcp:main",
        "three tools for assistants, over stdio: segment, clusters, similar",
        "tessera mcp --url http://127.0.0.1:8000 --allow photos",
    ),
    "completion": Command(
        "tessera.commands.completion:main",
        "what a shell needs to complete commands and options",
        "tessera completion bash >> ~/.bashrc",
    ),
}


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed with a reason on stderr, 2 wrong usage."""
    # A folder called `models` where the user stands, and PYTHONPATH=., must not stand before ours.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        _main()
    except KeyboardInterrupt:
        sys.exit(130)


def _main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        print(f"tessera {_version()}")
    elif name in COMMANDS:
        _run(name)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"tessera: no command {name!r}{hint}\n{_usage()}", file=sys.stderr)
        sys.exit(2)


def _run(name: str) -> None:
    from models.errors import TesseraError
    from models.extras import brings

    module, function = COMMANDS[name].owner.split(":")
    gc.disable()  # importing leaves no garbage, and looking for it is a quarter of the time
    try:
        command = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        extra = "training" if module.startswith("training.") else "cpu"
        absent = f"the package {error.name!r} is not installed here: {brings(extra)}"
        if {"-h", "--help"} & set(sys.argv[2:]):
            print(f"tessera {name}: {COMMANDS[name].line}\n\n  $ {COMMANDS[name].example}\n\n{absent}")
            sys.exit(0)
        print(f"tessera {name}: {absent}", file=sys.stderr)
        sys.exit(1)
    gc.freeze()
    gc.enable()
    sys.argv = [f"tessera {name}", *sys.argv[2:]]
    try:
        command()
    except TesseraError as error:
        print(f"tessera {name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _usage() -> str:
    return f"usage: tessera {{{','.join(COMMANDS)}}} …   (tessera COMMAND --help)"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {it.line}\n  {'':{width}}  $ {it.example}" for name, it in COMMANDS.items()]
    return "\n".join([_usage(), "", *lines, "", "  --version, --help"])


def _version() -> str:
    try:
        return version("tessera-segmentation")
    except PackageNotFoundError:
        return "unknown (a bare checkout)"
