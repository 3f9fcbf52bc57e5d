"""A trained encoder and its centroids → a bundle; refuses when ONNX and torch disagree.

Knows nothing of methods or of how the network was trained. The classic exporter is used because the graph it
writes is the same on every run, holds no path of this machine, and keeps batch, height and width free
for every backbone here (tests/training/export/test_write_bundle.py tries them).

Inside the graph three values have names that measuring can rely on (training/exported.py); none is an output:

    features    float32 [B, C, h, w]   the backbone's answer; its coarsest map where the head takes a pyramid
    code_once   float32 [B, D, h, w]   the head's answer, before it is averaged with the mirrored image's
    code_mean   float32 [B, D, h, w]   after it; where nothing follows the averaging, this is `code` itself

The last two are there only where the encoder averages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from models import bundle, inference, palette
from models.assign import Assignment
from models.bundle import Bundle, Golden
from models.manifest import Cluster, CodeSpec, Merge
from models.nets.encoder import Encoder
from models.preprocess import InputSpec
from models.types import Array
from training.clustering.hierarchy import hierarchy
from training.config.run import Run
from training.export.corpus_stats import CorpusStats
from training.export.onnx import Check, Deployed, Session, check, to_onnx
from training.export.provenance import Origin, bundle_name, notice, provenance

_CHECKED_IMAGES = 8


def export(
    encoder: Encoder,
    centroids: Tensor,
    *,
    assignment: Assignment,
    temperature: float,
    spec: InputSpec,
    stats: CorpusStats,
    report: Mapping[str, Any],
    run: Run,
    folder: Path,
) -> tuple[Bundle, Check]:
    """Writes the bundle of an encoder that a run trained to `folder`; see `write_bundle`."""
    count = min(_CHECKED_IMAGES, len(run.images))
    return write_bundle(
        encoder,
        centroids,
        assignment=assignment,
        temperature=temperature,
        spec=spec,
        fractions=stats.fractions.tolist(),
        golden=stats.golden,
        exemplars=stats.exemplars,
        images=[run.images[i * len(run.images) // count] for i in range(count)],
        report=report,
        origin=Origin(bundle_name(run), run.recipe.method, provenance(run), notice(run)),
        console=run.console,
        folder=folder,
    )


def write_bundle(
    encoder: Encoder,
    centroids: Tensor,
    *,
    assignment: Assignment,
    temperature: float,
    spec: InputSpec,
    fractions: Sequence[float],
    golden: Golden,
    exemplars: Mapping[int, Sequence[bytes]],
    images: Sequence[Array],
    report: Mapping[str, Any],
    origin: Origin,
    console: Console,
    folder: Path,
) -> tuple[Bundle, Check]:
    """Writes the bundle of an encoder to `folder`, wherever it comes from.

    centroids  float32 [K, D]
    fractions  share of every cluster, summing to 1
    images     RGB uint8 [H, W, 3] on which ONNX is held against torch, besides the golden one
    report     joins what is measured here, as report.json

    Raises ExportError or BundleError; nothing is written then.
    """
    centroids = centroids.detach().float().cpu()
    if assignment == "cosine":
        centroids = F.normalize(centroids, dim=1)
    network = Deployed(encoder, centroids)
    onnx = to_onnx(network, spec)
    checked = check(network, onnx, [*images, golden.image], spec)
    console.print(
        f"ONNX against torch: {checked.agreement:.3%} of the labels equal,"
        f" largest score difference {checked.difference:.2g}",
        highlight=False,
    )
    written = bundle.save(
        folder,
        name=origin.name,
        method=origin.method,
        input=spec,
        code=CodeSpec(dim=centroids.shape[1], stride=encoder.stride, assignment=assignment, temperature=temperature),
        clusters=clusters(fractions),
        hierarchy=list[Merge](hierarchy(centroids, fractions)),
        provenance=origin.provenance,
        encoder_onnx=onnx,
        centroids=centroids.numpy(),
        golden=golden,
        exemplars=exemplars,
        report={
            **report,
            "onnx": {"labels_equal": checked.agreement, "largest_score_difference": checked.difference},
        },
        notice=origin.notice,
    )
    agree = inference.self_test(written, Session(onnx))
    console.print(f"golden image: {agree:.2%} of the labels equal", highlight=False)
    return written, checked


def clusters(fractions: Sequence[float]) -> list[Cluster]:
    """Unnamed clusters in colors far apart."""
    colors = palette.distinct(len(fractions))
    return [
        Cluster(name=f"cluster {i}", color=palette.to_hex(color), fraction=min(1.0, fraction))
        for i, (color, fraction) in enumerate(zip(colors, fractions, strict=True))
    ]
