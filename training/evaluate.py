"""`tessera evaluate`: what a bundle is worth against ground truth.

    tessera evaluate runs/photos --data photos --labels labels
    tessera evaluate models/pretrained/street --data ../shared/data/camvid --dataset camvid --crf --refine fast

Knows no data set and no method: it opens both, hands them to `evaluation`, and writes what that finds as a table,
as evaluation.json and as evaluation.html. Labels are read here, and nowhere in training.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console

from models.bundle import Bundle
from models.class_file import MAX_BYTES, ClassFile, ClassFileError, is_class_file
from models.crf import reference
from models.errors import UsageError
from models.io.paths import Skipped
from models.refine import Method, Resolution
from models.terminal.progress import exit_code, say
from training.config.run import write_text
from training.data import datasets
from training.data.class_table import FORMATS
from training.data.datasets.folder import LabelMaps
from training.data.errors import DataError
from training.data.images import Bands, Images, evenly
from training.data.left_out import sentences
from training.evaluation.exported import Device
from training.evaluation.label_maps import Edges, Protocol, enlarged
from training.evaluation.label_options import classified
from training.evaluation.measure import Evaluation, evaluate
from training.evaluation.scoring import Labelled, Options
from training.evaluation.taught_classes import taught_classes
from training.report.evaluation_page import Example, page_of


def open_bundle(path: Path) -> Bundle:
    """The bundle in a folder, or in a run's folder. Raises UsageError, BundleError."""
    if (path / "manifest.json").is_file():
        return Bundle.load(path)
    if (path / "bundle" / "manifest.json").is_file():
        return Bundle.load(path / "bundle")
    raise UsageError(f"{path} holds no bundle: name a bundle's folder, or that of a finished run (`train --out`)")


def open_images(
    data: Path | Sequence[Path],
    dataset: str | None,
    split: str,
    labels: Path | None,
    *,
    bands: Bands = None,
    label_maps: LabelMaps = "leave_out",
    limit: int = 0,
) -> tuple[Images, list[Skipped], tuple[str, ...]]:
    """Labelled images, those without a label map, and what whoever asked should know.

    data        folders that are joined
    bands       which samples of a file with many are read; None: as the file says
    label_maps  what flat files are that are named as the photos beside them
    limit       this many of them at most, drawn evenly; 0: all

    No image is opened but those that `labels` has no map of: the others are when their turn comes. Raises DataError.
    """
    if labels is None and dataset is None:
        known = ", ".join(name for name in datasets.names() if name != "folder")
        raise UsageError(f"nothing to measure against: --labels names a folder of label maps, --dataset one of {known}")
    folders = datasets.resolved(data)
    without = [labels] if labels is not None and labels.resolve() not in folders else []
    found = datasets.find(dataset or "folder", folders, split, bands=bands, without=without, label_maps=label_maps)
    notes = (*found.notes, *sentences(found.left_out))
    paths: Sequence[Path] = found.paths
    skipped = []
    if labels is None:
        skipped = [Skipped(path, "it has no label map") for path in paths if path not in found.labels]
        paths = [path for path in paths if path in found.labels]
        if skipped and not paths:
            raise DataError(
                f"the {len(skipped)} images of {dataset} {split} have no label map: take a split that has them, or give"
                " --labels DIR"
            )
    if not paths:
        where = " and ".join(map(str, folders))
        raise DataError(f"no image of {dataset or 'any known format'} below {where}; is --data the right folder?")
    if limit:
        paths = [paths[i] for i in evenly(len(paths), limit)]
    images = Images(folders, paths, found)
    if labels is not None:
        images = datasets.with_labels(images, labels)
        notes += tuple(f"skipped {images.names.of(one.path)}: {one.reason}" for one in images.skipped)
    return images, skipped, notes


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN", help="A bundle's folder, or the run that made one.")],
    data: Annotated[list[Path], typer.Option(help="Folder of the images, or of the data set; repeatable.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder of label maps, named as the images: PNG, TIFF or BMP whose values are class numbers from 0;"
            " 255 is ignored, unless 0 and 255 are all there is."
        ),
    ] = None,
    labels_from: Annotated[
        int | None, typer.Option(min=0, max=254, help="The first class's number in the maps; what is below is ignored.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE|NAME", help="Values, or names of classes, to leave out; repeatable, or by commas."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Names of the classes, their values or colors: {FORMATS}. A file of taught classes is --taught.",
        ),
    ] = None,
    taught: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows of classes by example, as GET /classes/export gives them, by name."),
    ] = None,
    label_maps: Annotated[
        LabelMaps, typer.Option(help="Flat files in --data named as the photos beside them: left out, or photos.")
    ] = "leave_out",
    dataset: Annotated[str | None, typer.Option(help=f"One of: {', '.join(datasets.names())}.")] = None,
    split: Annotated[str, typer.Option(help="Of the data set.")] = "val",
    crf: Annotated[bool, typer.Option("--crf", help="Rows with the dense CRF, too: --refine dense.")] = False,
    refine: Annotated[
        list[str] | None, typer.Option(metavar="|".join(get_args(Method)), help="Rows refined like this; repeatable.")
    ] = None,
    crf_size: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(get_args(Resolution)), help="Refined at whose size; repeatable. Default: input."),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Rows with and without flip averaging.")] = False,
    protocol: Annotated[
        str, typer.Option(help="served: label maps as the service gives them. crop: the papers' central square.")
    ] = "served",
    linear_probe: Annotated[
        bool, typer.Option("--linear-probe", help="Train a linear layer on labelled codes, for measuring only.")
    ] = False,
    probe_data: Annotated[
        list[Path] | None, typer.Option(help="What it learns from; repeatable; default: --data.")
    ] = None,
    probe_labels: Annotated[Path | None, typer.Option(help="Its label maps, where --labels is used.")] = None,
    probe_split: Annotated[str | None, typer.Option(help="Its split; default: train.")] = None,
    probe_steps: Annotated[int, typer.Option(min=1, help="Its steps.")] = 400,
    levels: Annotated[
        bool, typer.Option("--levels", help="Accuracy with fewer clusters, along the bundle's tree, down to two.")
    ] = False,
    curves: Annotated[bool, typer.Option("--curves", help="Precision and recall of feature correspondences.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Photos to show in the page, with their errors.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and .html; default: RUN/evaluation, ./evaluation.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Score at most so many images, drawn evenly; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the probe and of the curves' pairs.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Images at once; default: one per core, or one where pydensecrf takes part.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Score a bundle against ground truth: Hungarian mIoU and accuracy, per class, with edges refined or not."""
    console = Console(stderr=True)
    with exit_code(console):
        if protocol not in get_args(Protocol):
            raise UsageError(f"--protocol {protocol}: write {' or '.join(get_args(Protocol))}")
        if device not in get_args(Device):
            raise UsageError(f"--device {device}: write {', '.join(get_args(Device))}")
        edges = edges_of(crf, refine or (), crf_size or ())
        if not linear_probe and (probe_data or probe_labels or probe_split):
            raise UsageError("--probe-data, --probe-labels and --probe-split belong to --linear-probe: add it")
        model = open_bundle(bundle)
        bands = model.manifest.input.bands
        images, failed, notes = open_images(
            data, dataset, split, labels, bands=bands, label_maps=label_maps, limit=limit
        )
        classes, taught, ontology = taught_file(classes, taught)
        images, noted = classified(images, console, classes, labels_from, ignore or ())
        notes += noted
        by_name = None
        if ontology is not None:
            try:
                by_name, noted = taught_classes(ontology, model, images.class_names)
            except UsageError as error:
                raise UsageError(f"{taught}: {error}") from None
            notes += noted
        labelled = Labelled(images, len(images.class_names), protocol, model.manifest.input.size)  # type: ignore[arg-type]
        learning = None
        if linear_probe:
            told = bool(probe_data or probe_split)
            if labels and not (probe_data and probe_labels):
                raise UsageError(
                    "--linear-probe learns from labels that are not the evaluated ones: name them with --probe-data and"
                    " --probe-labels"
                )
            other, more, _ = open_images(
                probe_data or data, dataset, probe_split or "train", probe_labels, bands=bands, label_maps=label_maps
            )
            failed += more
            other = other.classified(images.class_names, images.table)
            learning = Labelled(other, labelled.classes, labelled.protocol, labelled.size)
            notes += overlap(other, images, told=told)
        folder = writable(out or default_out(model.path))
        options = Options(edges, flip, curves, levels, probe_steps, seed, workers or default_workers(edges), device)  # type: ignore[arg-type]
        what = f"{dataset} {split}" if labels is None else f"{images.title} with {labels.name}"
        found = evaluate(model, labelled, what, options, console, learning, by_name)
        found.tally.skipped[:0] = failed
        found.notes[:0] = notes
        facts = found.facts()
        print(table(facts))  # before anything can go wrong on a disk
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "evaluation.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")
            write_text(folder / "evaluation.html", page_of(facts, examples_of(found, examples)))
        except OSError as error:
            raise UsageError(f"--out {folder}: {error.strerror}; name another folder") from None
    for one in facts["failed"]:
        say(console, f"failed {one['file']}: {one['reason']}")
    print(f"json    {folder / 'evaluation.json'}")
    print(f"page    {folder / 'evaluation.html'}")
    if facts["failed"]:
        raise typer.Exit(1)


def taught_file(classes: Path | None, taught: Path | None) -> tuple[Path | None, Path | None, ClassFile | None]:
    """The file that names the labels' classes, the one of taught classes, and what that holds.

    A file of taught classes is known by what it says it is, whichever option names it. Raises UsageError.
    """
    read = {}
    for option, path in (("--classes", classes), ("--taught", taught)):
        if path is not None:
            try:
                with path.open("rb") as file:
                    read[option] = file.read(MAX_BYTES + 1)
            except OSError as error:
                raise UsageError(f"{option} {path}: it cannot be read: {error.strerror}") from None
    if classes is not None and is_class_file(read["--classes"]):
        if taught is not None:
            raise UsageError(f"--classes {classes} is a file of taught classes, and so --taught names another one")
        classes, taught, read["--taught"] = None, classes, read["--classes"]
    if taught is None:
        return classes, None, None
    try:
        return classes, taught, ClassFile.parse(read["--taught"])
    except ClassFileError as error:
        raise UsageError(f"{taught}: {error}") from None


def edges_of(crf: bool, refine: Sequence[str], crf_size: Sequence[str]) -> tuple[Edges, ...]:
    """Every way of refining that is asked for, once, the dense CRF of --crf first. Raises UsageError."""
    hows = dict.fromkeys([*(["dense"] if crf else []), *refine])
    if crf_size and not hows:
        raise UsageError("--crf-size belongs to --crf or --refine: add one")
    sizes = dict.fromkeys(crf_size or ["input"])
    for option, given, known in (("--refine", hows, get_args(Method)), ("--crf-size", sizes, get_args(Resolution))):
        for word in given:
            if word not in known:
                raise UsageError(f"{option} {word}: write {', '.join(known)}")
    if "pydensecrf" in hows and (reason := reference.missing()):
        raise UsageError(f"--refine pydensecrf: {reason}")
    return tuple(Edges(cast(Method, how), cast(Resolution, at)) for how in hows for at in sizes)


def default_workers(edges: Sequence[Edges]) -> int:
    """Images at once. pydensecrf holds Python's lock: beside it every row's seconds would be those of waiting."""
    return 1 if any(one.method == "pydensecrf" for one in edges) else min(8, os.cpu_count() or 1)


def overlap(learning: Images, evaluated: Images, *, told: bool) -> tuple[str, ...]:
    """What to say where the probe learns from images it is measured on.

    Raises UsageError unless somebody asked for that by name.
    """
    both = len({path.resolve() for path in learning.paths} & {path.resolve() for path in evaluated.paths})
    if not both:
        return ()
    said = f"the linear probe learns from {both} of the images it is measured on"
    if not told:
        raise UsageError(f"{said}: name another --probe-split or --probe-data, or this one, if that is meant")
    return (f"{said}: its rows say what it remembers",)


def default_out(bundle: Path) -> Path:
    """RUN/evaluation for a run's bundle, else ./evaluation: other people's folders are left alone."""
    run = bundle.resolve().parent
    return run / "evaluation" if (run / "run.json").is_file() else Path("evaluation")


def writable(folder: Path) -> Path:
    """The folder, or where it can be made: known before the first image is scored. Raises UsageError."""
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise UsageError(f"--out {folder}: {standing} is no folder that can be written; name another")
    return folder


def examples_of(found: Evaluation, count: int) -> list[Example]:
    """Evenly drawn images with what was served for them, in classes, and the truth."""
    labelled = found.labelled
    match = next(row.scores.match for row in found.tally.rows if row.way == found.served)
    unusable = {one.path for one in found.tally.skipped}
    drawn = []
    for i in evenly(len(labelled), count):
        if labelled.images.paths[i] in unusable:
            continue
        image, truth, _ = labelled[i]
        labels = enlarged(found.mapper(image, [found.served])[found.served].labels, truth.shape)
        drawn.append(Example(labelled.images.name(i), image, match[labels], truth))
    return drawn


def table(facts: dict[str, Any]) -> str:
    """The rows as text; figures in percent."""
    rows = facts["rows"]
    width = max(len(row["name"]) for row in rows) + 2
    lines = [
        f"{facts['bundle']} on {facts['data']}: {facts['images']} images, {facts['clusters']} clusters,"
        f" {len(facts['classes'])} classes, protocol {facts['protocol']}",
        f"{'':{width}} {'mIoU':>7} {'accuracy':>9} {'precision':>10} {'s/image':>8}",
    ]
    for row in rows:
        miou, accuracy, precision = (_percent(row[name]) for name in ("miou", "accuracy", "mean_precision"))
        name = row["name"] + (" *" if row["served"] else "")
        lines.append(f"{name:{width}} {miou:>7} {accuracy:>9} {precision:>10} {row['seconds_per_image']:>8.3f}")
    lines.append("* the way the service takes")
    by_class = next(row for row in rows if row["served"])["iou"]
    seen = {name: value for name, value in by_class.items() if value is not None}
    lines.append("IoU *  " + "  ".join(f"{name} {_percent(value)}" for name, value in seen.items()))
    if absent := len(by_class) - len(seen):
        lines.append(f"note: {absent} of {len(by_class)} classes neither occur nor are predicted")
    if "linear_probe" in facts:
        probe = facts["linear_probe"]
        lines.append(
            f"The linear probe was trained with the labels of {probe['images']} images, for measuring only:"
            " nothing of it is in the bundle."
        )
    for kind, by_source in facts.get("correspondence", {}).items():
        found = ", ".join(f"{name} {_percent(curve['average_precision'])}" for name, curve in by_source.items())
        chance = next(iter(by_source.values()))["positives"]
        lines.append(f"average precision, {kind}: {found} (by chance {_percent(chance)})")
    if "levels" in facts:
        lines += level_lines(facts["levels"])
    lines += [f"note: {note}" for note in facts["notes"]]
    return "\n".join(lines)


def level_lines(facts: dict[str, Any]) -> list[str]:
    """The levels as text: accuracy in percent, and what each merge joins, by what it mostly shows."""
    beside = "centroids" in facts["rows"][0]
    other = f"   {'of the centroids:':>17} 1:1  m:1" if beside else ""
    lines = [f"levels of the tree by {facts['by']}: accuracy, a cluster to a class (1:1) and each its own (m:1)"]
    lines.append(f"{'k':>5} {'1:1':>6} {'m:1':>6} {'height':>7}{other}  joined, by what they mostly show")
    for row in facts["rows"]:
        height = "" if row["height"] is None else f"{row['height']:.2f}"
        line = f"{row['k']:>5} {_percent(row['one_to_one']):>6} {_percent(row['many_to_one']):>6} {height:>7}"
        if beside:
            line += f"   {_percent(row['centroids']['one_to_one']):>18} {_percent(row['centroids']['many_to_one']):>5}"
        lines.append(f"{line}  {joined(row)}".rstrip())
    return lines


def joined(row: dict[str, Any]) -> str:
    """ "building + car"; nothing where nothing was joined yet."""
    return " + ".join(name or "nothing" for name in row["joined"] or ())


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def main() -> None:
    """`tessera evaluate`."""
    typer.run(command)


if __name__ == "__main__":
    main()
