"""`tessera remeasure`: what a bundle says of its training images, measured anew: the tree of its clusters, and how sure
its network is of them, so that an answer can say how familiar an image is.

    tessera remeasure runs/photos --data photos
    tessera remeasure bundles/street --data photos --out bundles/street-anew
    tessera remeasure bundles/street --data photos --debias auto

For bundles made before these were there, and for imported ones. The network, its centroids, names and colors stay
as they are: manifest.json is all that changes, and with it the bundle's digest; and positions.npy with --debias.
Knows nothing of methods.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from models import bundle as bundles
from models import inference
from models.bundle import Bundle
from models.debias import Asked
from models.errors import TesseraError, UsageError
from models.manifest import Cluster, Merge
from models.terminal.progress import exit_code, say
from models.types import Array
from training.clustering.hierarchy import tree_of
from training.data import datasets
from training.data.datasets.folder import LabelMaps
from training.data.images import Images
from training.discovery.segmenter import Clustering
from training.evaluation.exported import Exported
from training.export.corpus_stats import CorpusStats, measure
from training.export.positions import positions


def remeasure(
    bundle: Bundle,
    images: Images,
    console: Console,
    out: Path | None = None,
    *,
    seed: int | None = None,
    other_images: bool = False,
    debias: Asked = 0,
) -> Bundle:
    """The bundle with what its images say of its clusters, in its own place or written to `out`.

    seed          of the regions that are drawn and of their clusterings; None: that of the training
    other_images  whether they may be others than the bundle was made of
    debias        directions of its code that say where a place is, to be kept; 0: those it has

    Raises UsageError for other images and for directions that its code does not have, TesseraError where images say
    nothing, BundleError where the network no longer repeats its golden image; nothing is written then.
    """
    manifest = bundle.manifest
    network = Exported(bundle.encoder_bytes(), threads=torch.get_num_threads())
    inference.self_test(bundle, network)
    made_of = manifest.provenance
    if made_of.images and images.digest != made_of.data_sha256:
        count = made_of.images
        others = f"by names and sizes these {len(images)} images are not the {count} that the bundle was made of"
        if not other_images:
            raise UsageError(
                f"{others}: name the folders of those as --data. Where they are gone and these show the same kind of"
                " thing, add --other-images; of images unlike them the tree would be none of this network's clusters"
            )
        say(console, f"note: {others}")
    kept = _positions(bundle, network, debias)
    found = Clustering(torch.tensor(bundle.centroids), manifest.code.assignment)
    seen = measure(
        found, manifest.input, images, exemplars=0, device=torch.device("cpu"), console=console, predict=network,
        seed=abs(manifest.provenance.seed if seed is None else seed),
    )  # fmt: skip
    return bundles.rewrite(bundle, changes(bundle, seen), out, positions=kept)


def _positions(bundle: Bundle, network: Exported, asked: Asked) -> Array | None:
    manifest = bundle.manifest
    if asked and manifest.code.assignment != "cosine":
        raise UsageError(f"--debias: {bundle.ref} compares by dot products; similarity needs a model with cosines")
    try:
        return positions(network, manifest.input, manifest.normalization, asked)
    except TesseraError as error:
        raise UsageError(f"--{error}") from None


def changes(bundle: Bundle, seen: CorpusStats) -> dict[str, Any]:
    """What of the manifest follows from the images, as JSON has it. Raises TesseraError where they say nothing."""
    manifest = bundle.manifest
    if seen.apart is None:
        raise TesseraError("fewer than two of the clusters are in any of these images: name others as --data")
    found: dict[str, Any] = {}
    fractions = [cluster.fraction for cluster in manifest.clusters]
    if not manifest.provenance.images:  # imported without any: the shares were set equal
        fractions = seen.fractions.tolist()
        found["clusters"] = [
            {**cluster.model_dump(mode="json"), "fraction": min(1.0, fraction)}
            for cluster, fraction in zip(manifest.clusters, fractions, strict=True)
        ]
    merges, by = tree_of(seen.apart, torch.tensor(bundle.centroids), fractions)
    return {
        **found,
        "hierarchy": [merge.model_dump(mode="json") for merge in merges],
        "hierarchy_by": by,
        "familiarity": seen.photos.familiarity_by(fractions).model_dump(mode="json"),
    }


def told(before: Bundle, after: Bundle) -> list[str]:
    """What is another than it was, in lines for people."""
    old, new = before.manifest, after.manifest
    lines = [f"{before.ref} → {after.ref}"]
    if old.clusters != new.clusters:
        lines.append("shares of the clusters: measured")
    if old.files.get("positions.npy") != new.files.get("positions.npy") and after.positions is not None:
        dim, taken = after.positions.shape
        lines.append(f"places of different images are compared without {taken} of {dim} directions")
    if old.familiarity != new.familiarity and new.familiarity is not None:
        quantiles, threshold = new.familiarity.quantiles, new.familiarity.threshold
        middle = quantiles[len(quantiles) // 2]
        lines.append(f"familiarity: half of the images are surer than {middle:.3f}, 2 % less than {threshold:.3f}")
    if (old.hierarchy, old.hierarchy_by) == (new.hierarchy, new.hierarchy_by):
        return [*lines, "tree: as it was"]
    lines.append(
        f"tree: by {old.hierarchy_by} → by {new.hierarchy_by}; left, what becomes one, and how far apart it was"
    )
    lines += [f"  {one.k:3}  {_said(one, new.clusters)}" for one in new.hierarchy]
    return lines


def _said(merge: Merge, clusters: Sequence[Cluster]) -> str:
    a, b = (clusters[k].name for k in merge.merge)
    return f"{a} + {b}  {merge.height:.2f}"


def _open(path: Path) -> Bundle:
    """The bundle in a folder, or in a run's. Raises BundleError."""
    inner = path / "bundle"
    return Bundle.load(inner if not (path / "manifest.json").is_file() and inner.is_dir() else path)


def _asked(debias: str) -> Asked:
    if debias == "auto":
        return "auto"
    if not debias.isascii() or not debias.isdigit():
        raise UsageError(f"--debias {debias}: write a number, or auto")
    return int(debias)


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN", help="A bundle's folder, or the run that made one.")],
    data: Annotated[list[Path], typer.Option(help="Folder of its training images; repeatable.")],
    dataset: Annotated[str, typer.Option(help=f"One of: {', '.join(datasets.names())}.")] = "folder",
    split: Annotated[str, typer.Option(help="Of the data set.")] = "train",
    label_maps: Annotated[
        LabelMaps, typer.Option(help="Flat files in --data named as the photos beside them: left out, or photos.")
    ] = "leave_out",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new bundle; default: the bundle's own manifest is replaced.")
    ] = None,
    other_images: Annotated[
        bool,
        typer.Option("--other-images", help="Take images that the bundle was not made of: they must be like them."),
    ] = False,
    debias: Annotated[
        str,
        typer.Option(
            metavar="N", help="Keep N directions of the code that say where a place is, or auto; default: as it is."
        ),
    ] = "0",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the tree's regions and clusterings; default: that of the training.")
    ] = None,
) -> None:
    """Measure a bundle on its training images again: which clusters belong together, and how familiar images are."""
    console = Console(stderr=True)
    with exit_code(console):
        if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not empty: name a new folder as --out")
        asked = _asked(debias)
        before = _open(bundle)
        without = [before.path, *([out] if out else [])]
        images = datasets.open(
            dataset, data, split=split, bands=before.manifest.input.bands, console=console, without=without,
            label_maps=label_maps, fewest=1,
        )  # fmt: skip
        after = remeasure(before, images, console, out, seed=seed, other_images=other_images, debias=asked)
    for line in told(before, after):
        print(line)
    print(f"bundle  {after.path}")


def main() -> None:
    """`tessera remeasure`."""
    typer.run(command)


if __name__ == "__main__":
    main()
