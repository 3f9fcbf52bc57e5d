"""`tessera recluster`: another number of clusters for a run that is done, from the codes it kept.

    tessera recluster runs/photos --k 12
    tessera recluster runs/photos --k auto --align-to bundles/last-year

Knows nothing of methods or of torch networks: the bundle's own graph gets other centroids, everything else in it stays
as it was proved. A run of an earlier release kept no codes: they are computed first, by that graph.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import copy
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import torch
import typer
from onnx import load_from_string
from rich.console import Console
from torch import Tensor

from models import bundle as bundles
from models import bundle_files, inference
from models.bundle import Bundle
from models.errors import TesseraError, UsageError
from models.inference import Predictor
from models.manifest import Provenance
from models.preprocess import fit
from models.terminal import command_line
from models.terminal.progress import exit_code, say
from training import methods
from training.clustering.hierarchy import tree_of
from training.clustering.kmeans import kmeans
from training.config import facts, run_folder
from training.config import recipe as recipes
from training.config.run import Run, folders_of, write_text
from training.data import datasets
from training.discovery import choose_k, code_sample
from training.discovery.code_sample import CodeSample, Grid, Remembered
from training.discovery.segmenter import Clustering
from training.evaluation.exported import Exported, mirrors, without_averaging
from training.export.carry_over import carry_over
from training.export.corpus_stats import golden_by, measure
from training.export.regraph import with_centroids
from training.export.write_bundle import clusters
from training.report import training_page

_TEMPERATURE = 2.0  # of cosines, where the bundle compared codes otherwise
_AGREE = 0.02  # of codes kept at half precision with those computed anew, as a share of their length


def recluster(
    run: Run, bundle: Bundle, k: int | None, out: Path | None = None, *, align_to: Bundle | None = None
) -> Bundle:
    """A bundle of the same network with k clusters, written to `out`.

    k         None: as many as the codes support
    out       None: RUN/bundle-kN
    align_to  whose ids, names and colors are kept where clusters are the same; None: those of `bundle`

    Raises TesseraError; nothing is written then.
    """
    began = time.monotonic()
    network = bundle.encoder_bytes()
    exported = Exported(network, threads=torch.get_num_threads())
    codes = _codes(exported, network, bundle, run)
    with tempfile.TemporaryDirectory() as apart:  # what is noted is of the new bundle, and not the run's
        noting = replace(run, folder=Path(apart), images=run.images.subset(codes.images.tolist()))
        _lend(run, noting)
        k = k or _proposed(codes, noting)
        if k > len(codes.points):
            raise UsageError(f"--k {k}: the sample of codes has {len(codes.points)} places; ask for fewer clusters")
        how = ", by k-means: what belongs together is joined by a training only" if run.recipe.clusters.merge else ""
        say(run.console, f"clustering {len(codes.points)} codes of {len(codes.images)} images into {k}{how}")
        restarts = run.recipe.clusters.restarts
        found, _ = kmeans(codes.points, k, seed=run.recipe.seed, restarts=restarts, metric="cosine")
        found, names = _aligned(found, codes, exported, bundle, align_to or bundle, noting)
        out = out or run.folder / f"bundle-k{k}"
        written = _write(found, names, codes, exported, bundle, out, noting, began)
        page = training_page.page_of(written, recipes.encode(run.recipe), noting, folder=run.folder)
        write_text(report_of(out), page)
    return written


def report_of(out: Path) -> Path:
    """Where the page of a bundle in `out` is put."""
    return out.with_name(f"{out.name}.html")


def _lend(run: Run, noting: Run) -> None:
    """What a page tells of the training, too: its log, and what it noted."""
    noting.log.parent.mkdir(parents=True, exist_ok=True)
    if run.log.is_file():
        shutil.copy(run.log, noting.log)
    for name in ("balance", "k_curve", "stages"):
        if (value := facts.noted(run, name)) is not None:
            facts.note(noting, name, value)


def _aligned(
    centroids: Tensor, codes: CodeSample, exported: Exported, bundle: Bundle, to: Bundle, run: Run
) -> tuple[Tensor, tuple[tuple[str, str], ...]]:
    """The centroids in the order of another bundle's clusters; name and color of each."""
    old: Predictor = (
        Remembered(codes, to.centroids, exported)
        if to is bundle or _same_network(to, bundle)
        else Exported(to.encoder_bytes(), threads=torch.get_num_threads())
    )
    new = Remembered(codes, centroids.numpy(), exported)
    kept = carry_over(to, old, new, len(centroids), bundle.manifest.input, run.images, run)
    return centroids[list(kept.order)], kept.names


def _write(
    centroids: Tensor,
    names: tuple[tuple[str, str], ...],
    codes: CodeSample,
    exported: Exported,
    bundle: Bundle,
    out: Path,
    run: Run,
    began: float,
) -> Bundle:
    """Shows the clusters the images whose codes are kept, and writes the bundle."""
    manifest, recipe = bundle.manifest, run.recipe
    network = with_centroids(bundle.encoder_bytes(), centroids.numpy())
    seen = measure(
        Clustering(centroids, "cosine"), manifest.input, run.images, exemplars=recipe.export.exemplars,
        device=torch.device("cpu"), console=run.console, most=len(run.images),
        predict=Remembered(codes, centroids.numpy(), exported), seed=recipe.seed, workers=recipe.workers,
    )  # fmt: skip
    facts.note(run, "photos", seen.photos.facts())
    report = training_page.facts(run.images, seen, torch.device("cpu"), [], {"recluster": time.monotonic() - began})
    if (onnx := bundle.report().get("onnx")) is not None:
        report["onnx"] = onnx  # the same graph: what was held against torch
    tree = tree_of(seen.apart, centroids, seen.fractions.tolist())
    answers, fractions, code = Exported(network), seen.fractions.tolist(), manifest.code
    if code.assignment != "cosine":
        code = code.model_copy(update={"assignment": "cosine", "temperature": _TEMPERATURE})
    written = bundles.save(
        out,
        name=manifest.name,
        method=manifest.method,
        input=manifest.input,
        normalization=manifest.normalization,
        code=code,
        clusters=clusters(fractions, names),
        hierarchy=tree.merges,
        hierarchy_by=tree.by,
        familiarity=seen.photos.familiarity,
        provenance=_provenance(manifest.provenance, len(centroids)),
        encoder_onnx=network,
        centroids=centroids.numpy(),
        positions=bundle.positions,
        golden=golden_by(seen.golden.image, answers, manifest.input),
        exemplars=seen.exemplars,
        report=report,
        notice=bundle_files.read(bundle.path, "NOTICE").decode(),
    )
    inference.self_test(written, answers)
    return written


def _provenance(before: Provenance, k: int) -> Provenance:
    """Of the same training, with another number of clusters."""
    page = copy.deepcopy(before.recipe)
    page.setdefault("clusters", {})["k"] = k
    digest = hashlib.sha256(json.dumps(page, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return before.model_copy(update={"created": now, "recipe": page, "recipe_sha256": digest})


def _codes(exported: Exported, network: bytes, bundle: Bundle, run: Run) -> CodeSample:
    """The run's sample of codes; computed where it kept none, or those of another network."""
    spec, path = bundle.manifest.input, code_sample.path_of(run)
    known = {"images": run.images.digest}

    def code(pixels: Any, by: Exported = exported) -> Tensor:
        found = by(np.ascontiguousarray(pixels)[None], code=True).code
        assert found is not None  # it was asked for
        return torch.from_numpy(found[0].copy())

    kept = CodeSample.load(path, known)
    if kept is not None and kept.points.shape[1] == bundle.manifest.code.dim:
        first = fit(run.images[int(kept.images[0])], spec).pixels
        name = code_sample.name_of(first)
        if name in kept.maps and kept.maps[name].shape == (now := code(first)).shape:
            off = (kept.maps[name].float() - now).norm(dim=0).mean() / now.norm(dim=0).mean()
            if float(off) < _AGREE:
                return kept
    say(run.console, "the run kept no codes of this network: they are computed once")
    once = without_averaging(network) if mirrors(load_from_string(network)) else None
    alone = exported if once is None else Exported(once, threads=torch.get_num_threads())
    grid = Grid(bundle.manifest.code.stride, run.recipe.clusters.position > 0)
    found = code_sample.sample(code, lambda pixels: code(pixels, alone), spec, run, grid)
    code_sample.keep(found, run, known)
    return found


def _same_network(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles differ in their centroids alone."""
    if one.centroids.shape[1] != other.centroids.shape[1]:
        return False
    try:
        return with_centroids(one.encoder_bytes(), other.centroids) == with_centroids(
            other.encoder_bytes(), other.centroids
        )
    except TesseraError:
        return False


def _proposed(codes: CodeSample, run: Run) -> int:
    """As many clusters as the codes support, told and noted; as the training found, where it has looked."""
    known = facts.noted(run, "k_curve")
    if known and known.get("proposed"):
        say(run.console, f"how many clusters: {known['sentence']}")
        return int(known["proposed"])
    found = choose_k.propose(codes.views, codes.of, seed=run.recipe.seed)
    if found is None:
        raise TesseraError("there are too few codes to tell how many clusters they have: name a number as --k")
    say(run.console, f"how many clusters: {found.sentence}")
    facts.note(run, "k_curve", found.facts())
    return found.k


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that has written its bundle.")],
    k: Annotated[str, typer.Option(help="How many clusters, 2 to 255, or auto: as many as the codes support.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; default: RUN/bundle-kN.")] = None,
    align_to: Annotated[
        Path | None, typer.Option(help="Bundle whose ids, names and colors are kept; default: the run's own.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Where the run's images are now, if not where they were; may be repeated.")
    ] = None,
) -> None:
    """Make a bundle with another number of clusters of a run that is done, in less than a minute."""
    console = Console(stderr=True)
    with exit_code(console):
        count = _count(k)
        begun = run_folder.begun(folder)
        if begun is None:
            raise UsageError(f"{folder} holds no run: name the --out of one")
        if not (folder / "bundle").is_dir():
            raise UsageError(f"{folder} has no bundle yet: let its training end first")
        if (
            out
            and out.exists()
            and (not out.is_dir() or (any(out.iterdir()) and not (out / "manifest.json").is_file()))
        ):
            raise UsageError(f"{out} is there and no bundle: name a new folder as --out")
        bundle, other = Bundle.load(folder / "bundle"), Bundle.load(align_to) if align_to else None
        recipe = recipes.parse(begun["recipe"], config_of=methods.config)
        images = datasets.open(
            recipe.dataset, data or folders_of(begun["data"]), split=recipe.split, bands=recipe.data.bands or None,
            console=console, without=[folder, *([out] if out else [])], label_maps=recipe.data.label_maps,
            index=folder / "cache" / "images.sqlite3",
        )  # fmt: skip
        run = Run(recipe, images, folder, torch.device("cpu"), console)
        made = recluster(run, bundle, count, out, align_to=other)
    print(f"{len(made.manifest.clusters)} clusters")
    print(f"bundle  {made.path}")
    print(f"report  {report_of(made.path)}")
    print(f"serve   {command_line.command('serve', '--bundle', made.path)}")


def _count(k: str) -> int | None:
    if k == "auto":
        return None
    if not k.isascii() or not k.isdigit() or not 2 <= int(k) <= 255:
        raise UsageError(f"--k {k}: write a number of 2 to 255, or auto")
    return int(k)


def main() -> None:
    """`tessera recluster`."""
    typer.run(command)


if __name__ == "__main__":
    main()
