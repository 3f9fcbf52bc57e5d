"""`tessera export`: a bundle's network for programs that read ONNX of another layout. No torch is needed.

Knows nothing of graphs; `geoai_graph.py` makes them.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.bundle import Bundle
from models.files import write_atomically
from models.terminal.progress import exit_code, say
from tessera.commands.clusters import bundle_folder
from tessera.commands.geoai_graph import geoai_graph, sidecar

app = typer.Typer(add_completion=False, help="A bundle's network for other programs.")


def main() -> None:
    """The command."""
    app()


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, or the run that holds one.", show_default=False)],
    geoai: Annotated[Path, typer.Option(help="The folder for NAME.onnx and NAME.onnx.json.", show_default=False)],
) -> None:
    """The network as geoai-py and its QGIS plugin load it, with the sidecar that they read.

    $ tessera export runs/photos --geoai exported
    """
    console = Console(stderr=True)
    with exit_code(console):
        found = Bundle.load(bundle_folder(bundle))
        network, facts = geoai_graph(found), json.dumps(sidecar(found), indent=2, ensure_ascii=False).encode()
        geoai.mkdir(parents=True, exist_ok=True)
        path = geoai / f"{found.manifest.name}.onnx"
        write_atomically(path, lambda file: file.write(network))
        write_atomically(path.with_name(f"{path.name}.json"), lambda file: file.write(facts))
        say(console, f"{found.ref}: cluster k is class k + 1, and 0 is no data")
        print(path)
