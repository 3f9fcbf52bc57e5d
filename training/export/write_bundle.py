"""A segmenter → a bundle; refuses when its ONNX file and torch disagree.

Knows nothing of methods, of how the network was trained, or of what a bundle's files look like (models/bundle.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from models import bundle, inference, palette
from models.bundle import Bundle, Golden
from models.manifest import Cluster, CodeSpec, Familiarity
from models.preprocess import InputSpec
from models.terminal.progress import say
from models.types import Array
from training.clustering.hierarchy import tree_of
from training.discovery.segmenter import Segmenter
from training.evaluation.exported import Exported
from training.export.onnx import Deployed, check, to_onnx
from training.export.provenance import Origin


def write_bundle(
    found: Segmenter,
    spec: InputSpec,
    origin: Origin,
    *,
    fractions: Sequence[float],
    apart: Array | None = None,
    golden: Golden,
    exemplars: Mapping[int, Sequence[bytes]],
    images: Sequence[Array],
    report: Mapping[str, Any],
    console: Console,
    folder: Path,
    onnx: bytes | None = None,
    named: Sequence[tuple[str, str]] = (),
    familiarity: Familiarity | None = None,
    positions: Array | None = None,
) -> Bundle:
    """Writes the bundle of a segmenter to `folder`, wherever it comes from.

    fractions  share of every cluster, summing to 1
    apart      how far apart clusters are, as CorpusStats has it; None: the tree is that of the centroids
    images     RGB uint8 [H, W, 3] on which ONNX is held against torch, besides the golden one
    report     joins what is measured here, as report.json
    named      name and color of every cluster; none: "cluster 0" and so on
    familiarity  how sure the network was of its training images; None where none was measured
    positions  what of the code says where a place is (training/export/positions.py)
    onnx       the network as `to_onnx` wrote it; None: it is written here

    Raises TesseraError or BundleError; nothing is written then.
    """
    centroids = found.compared.detach().float().cpu()
    network = Deployed(found.encoder, centroids)
    onnx = onnx or to_onnx(network, spec)
    checked = check(network, onnx, [*images, golden.image], spec)
    say(
        console,
        f"ONNX against torch: {checked.agreement:.3%} of the labels equal,"
        f" largest score difference {checked.difference:.2g}",
    )
    code = CodeSpec(
        dim=centroids.shape[1],
        stride=found.encoder.stride,
        assignment=found.assignment,
        temperature=found.temperature,
    )
    tree = tree_of(apart, centroids, fractions)
    measured = {"labels_equal": checked.agreement, "largest_score_difference": checked.difference}
    written = bundle.save(
        folder,
        name=origin.name,
        method=origin.method,
        input=spec,
        normalization=found.encoder.backbone.normalization,
        code=code,
        clusters=clusters(fractions, named),
        hierarchy=tree.merges,
        hierarchy_by=tree.by,
        familiarity=familiarity,
        provenance=origin.provenance,
        encoder_onnx=onnx,
        centroids=centroids.numpy(),
        positions=positions,
        golden=golden,
        exemplars=exemplars,
        report={**report, "onnx": measured},
        notice=origin.notice,
    )
    agree = inference.self_test(written, Exported(onnx))
    say(console, f"golden image: {agree:.2%} of the labels equal")
    return written


def clusters(fractions: Sequence[float], named: Sequence[tuple[str, str]] = ()) -> list[Cluster]:
    """Clusters by name and color; unnamed ones in colors far apart where none are given."""
    colors = palette.distinct(len(fractions))
    named = named or [(f"cluster {i}", palette.to_hex(color)) for i, color in enumerate(colors)]
    return [
        Cluster(name=name, color=color, fraction=min(1.0, fraction))
        for (name, color), fraction in zip(named, fractions, strict=True)
    ]
