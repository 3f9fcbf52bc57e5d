"""`tessera import`: the checkpoints that a method's authors published → a bundle, ready to serve.

    tessera import cocostuff27_vit_base_5.ckpt --out models/stego-coco
    tessera import checkpoint.pth.tar --out models/picie --data photos
    tessera import segment_tr.pth cluster_tr.pth modular.npy --backbone dino_vitbase8_pretrain.pth --out models/cause

Knows nothing of what such a checkpoint looks like inside (training/importers/). Only tensors are read, nothing in a
file is executed. What training would have measured, the clusters' shares and their patches, needs images: --data.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from models.bundle import Bundle
from models.errors import UsageError
from models.manifest import Familiarity, Provenance
from models.nets.checkpoints.reader import read_checkpoint
from models.terminal.progress import exit_code, say
from training import importers
from training.data import datasets
from training.data.images import Images, evenly
from training.data.preprocess import input_spec
from training.data.synthetic import street
from training.export.corpus_stats import golden_of, measure
from training.export.provenance import Origin, plain_name, tessera_version
from training.export.write_bundle import write_bundle
from training.importers import Options, Parts, Published
from training.report import training_page

_CHECKED_IMAGES = 4
_SMALLEST, _LARGEST = 32, 2048  # --size


def import_checkpoints(
    paths: Sequence[Path],
    out: Path,
    options: Options,
    *,
    data: Sequence[Path] = (),
    name: str = "",
    size: int = 320,
    kind: str = "",
    exemplars: int = 5,
    console: Console,
) -> Bundle:
    """The bundle of one published model, written to `out`.

    paths      its files; for CAUSE several
    data       folders of photos that the clusters are shown and measured on
    kind       the format; empty: what the tensors' names say
    exemplars  patches per cluster; 0: nothing of a photo is shown

    Raises TesseraError; nothing is written then.
    """
    parts = open_parts(paths)
    kind = kind or importers.recognized(parts)
    found = importers.read(parts, kind, options)
    segmenter = found.segmenter
    segmenter.encoder.eval()
    spec = input_spec(segmenter.encoder, size)
    images = datasets.open("folder", data, console=console) if data else None
    origin = origin_of(found, kind, paths, options, images, name, exemplars)
    for note in found.notes:
        say(console, f"note: {note}")
    k = len(segmenter.centroids)
    met = replace(segmenter, centroids=segmenter.compared)
    familiarity: Familiarity | None = None
    facts: dict[str, Any] = {"imported": origin.provenance.recipe, "notes": list(found.notes)}
    if images is None:
        say(
            console,
            f"without --data: the {k} clusters' shares are unknown and set equal, they get no patches, their tree ranks"
            " the network's centroids, and the golden image is a drawn street; tessera remeasure measures shares and"
            " tree later",
        )
        fractions, patches, apart = [1 / k] * k, dict[int, list[bytes]](), None
        golden = golden_of(street(), met, spec, torch.device("cpu"))
        shown = [street(seed=1)]
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        seen = measure(met, spec, images, exemplars=exemplars, device=device, console=console)
        fractions, patches, golden, apart = seen.fractions.tolist(), seen.exemplars, seen.golden, seen.apart
        familiarity = seen.photos.familiarity
        shown = [images[i] for i in evenly(len(images), _CHECKED_IMAGES)]
        facts = training_page.facts(images, seen, device, [], {}) | facts
    say(console, "exporting, and holding ONNX against torch; of a ViT with patches of 8 this takes minutes")
    return write_bundle(
        segmenter,
        spec,
        origin,
        fractions=fractions,
        apart=apart,
        golden=golden,
        exemplars=patches,
        images=shown,
        report=facts,
        console=console,
        folder=out,
        familiarity=familiarity,
    )


def open_parts(paths: Sequence[Path]) -> Parts:
    """All tensors of all files. One that is a whole file is taken for a codebook. Raises ForeignCheckpointError."""
    files = [read_checkpoint(path) for path in paths]
    tensors = {
        f"{number}.{name or 'codebook'}": tensor
        for number, file in enumerate(files)
        for name, tensor in file.tensors.items()
    }
    return Parts(tensors, lambda name: set[str | float | None]().union(*(file.settings(name) for file in files)))


def origin_of(
    found: Published,
    kind: str,
    paths: Sequence[Path],
    options: Options,
    images: Images | None,
    name: str,
    exemplars: int,
) -> Origin:
    """Name, provenance and NOTICE. Paths of this machine are left out. Raises UsageError for a bad name."""
    named = plain_name(name) or f"{plain_name(paths[0].name.split('.')[0]) or 'imported'}-{kind}"[:63]
    if name and named != name:
        raise UsageError(f"--name {name}: lower-case letters, digits, dots and dashes, for instance {named}")
    backbone = Path(options.backbone)
    files = [*paths, *([backbone] if options.backbone and backbone.is_file() else [])]
    digests = [(path.name, digest(path)) for path in files]
    page: Mapping[str, Any] = {
        "import": {"format": kind, "files": digests, "backbone": found.backbone, "classifier": options.classifier or 0}
    }
    measured = f"{len(images)} images of {images.title}" if images else "no image: nothing was measured"
    provenance = Provenance(
        tessera=tessera_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=dict(page),
        recipe_sha256=hashlib.sha256(json.dumps(page, sort_keys=True).encode()).hexdigest(),
        seed=0,
        images=len(images) if images else 0,
        data=f"its authors' training images; here {measured}",
        data_sha256=images.digest if images else hashlib.sha256(b"").hexdigest(),
        licence=found.licence,
    )
    lines = [f"Segmentation bundle {named}, made by Tessera from a published {kind.upper()} checkpoint.", ""]
    lines += [f"{file}  sha256 {value}" for file, value in digests]
    lines += ["", f"Licence of the weights: {found.licence}.", f"Backbone: {found.backbone}."]
    lines += [f"Note: {note}." for note in found.notes]
    if images:
        held = "real patches of them" if exemplars else "no single one of them"
        lines.append(f"Shown images: {measured}, licence: whatever their owner gave. The bundle holds {held}.")
    return Origin(named, kind, provenance, "\n".join(lines) + "\n")


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def command(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT", help="The published file; of CAUSE head, clusters, codebook.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; new.")],
    backbone: Annotated[
        str, typer.Option(help="CAUSE's: DINO's file, or a timm name. Of STEGO only where it is not in the file.")
    ] = "",
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of photos to measure the clusters on; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the bundle is called; default: after the file.")] = "",
    size: Annotated[int, typer.Option(help="Short side when serving, in pixels; the papers' is 320.")] = 320,
    kind: Annotated[
        str, typer.Option("--format", help=f"One of: {', '.join(importers.names())}; default: what is recognized.")
    ] = "",
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads of the ViT.")] = None,
    classifier: Annotated[int | None, typer.Option(min=1, max=2, help="PiCIE's, 1 or 2.")] = None,
    no_exemplars: Annotated[
        bool, typer.Option("--no-exemplars", help="Private photos: no part of one is in the bundle.")
    ] = False,
) -> None:
    """Make a bundle of a checkpoint that the authors of STEGO, PiCIE or CAUSE published."""
    console = Console(stderr=True)
    with exit_code(console):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not empty: name a new folder as --out")
        if missing := [path for path in checkpoints if not path.is_file()]:
            raise UsageError(f"{missing[0]}: no such file")
        if not _SMALLEST <= size <= _LARGEST:
            raise UsageError(f"--size {size}: take {_SMALLEST} to {_LARGEST} pixels")
        bundle = import_checkpoints(
            checkpoints,
            out.resolve(),
            Options(backbone, heads, classifier),
            data=data or (),
            name=name,
            size=size,
            kind=kind,
            exemplars=0 if no_exemplars else 5,
            console=console,
        )
    print(f"{len(bundle.manifest.clusters)} clusters, licence: {bundle.manifest.provenance.licence}")
    print(f"bundle  {out}")
    print(f"serve   tessera serve --bundle {shlex.quote(str(out))}")


def main() -> None:
    """`tessera import`."""
    typer.run(command)
