"""`tessera clusters`: what a bundle tells apart, as a table and as a contact sheet.

Knows nothing of servers: names that people gave to a served bundle are in the server's state, and not here.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models import similarity
from models.bundle import Bundle
from models.errors import UsageError
from models.files import write_atomically
from models.terminal.progress import exit_code, say
from service.settings import embedded
from tessera.commands.contact_sheet import NEIGHBORS, contact_sheet

_BAR = 20  # characters of the whole

app = typer.Typer(add_completion=False, help="What a bundle tells apart.")


def main() -> None:
    """The command."""
    app()


@app.command()
def clusters(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, or the run that holds one.", show_default=False)],
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet there: one page, nothing fetched.")] = None,
) -> None:
    """Names, colors, shares and neighbors of a bundle's clusters; with --html their patches and the tree as well.

    $ tessera clusters runs/photos --html clusters.html
    """
    console = Console(stderr=True)
    with exit_code(console):
        found = Bundle.load(bundle_folder(bundle))
        Console().print(_table(found))
        if html:
            html.parent.mkdir(parents=True, exist_ok=True)
            page = contact_sheet(found).encode()
            write_atomically(html, lambda file: file.write(page))
            say(console, f"wrote {html}")


def bundle_folder(path: Path) -> Path:
    """The bundle's folder; a run's is in it. Raises UsageError."""
    if (path / "manifest.json").exists():
        return path
    if (path / "bundle" / "manifest.json").exists():
        return path / "bundle"
    raise UsageError(
        f"{path} is no bundle, nor a run that holds one: name the folder with manifest.json,"
        f" such as runs/photos/bundle of the run runs/photos, or the embedded one {os.path.relpath(embedded()[0])}"
    )


def _table(bundle: Bundle) -> Table:
    """The largest cluster first."""
    manifest = bundle.manifest
    table = Table(title=f"{bundle.ref} · {manifest.method} · {len(manifest.clusters)} clusters", title_justify="left")
    for heading, justify in (("id", "right"), ("", "left"), ("name", "left"), ("share", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("nearest, by cosine")
    near = similarity.nearest(bundle.centroids, NEIGHBORS)
    for k in sorted(range(len(manifest.clusters)), key=lambda k: -manifest.clusters[k].fraction):
        cluster = manifest.clusters[k]
        others = ", ".join(f"{other} {cosine:+.2f}" for other, cosine in near[k])
        bar = "█" * max(1, round(_BAR * cluster.fraction))
        table.add_row(str(k), f"[{cluster.color}]██[/]", _plain(cluster.name), f"{cluster.fraction:.1%}",
                      f"[{cluster.color}]{bar}[/]", others)  # fmt: skip
    return table


def _plain(text: str) -> str:
    """A name as it stands: brackets in it are no markup."""
    return text.replace("[", r"\[")
