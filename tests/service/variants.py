"""Bundles like another one: under another name, of another digest, with the clusters under other ids.

Knows nothing of the service.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models import assign, bundle
from models.bundle import Bundle, Golden
from models.manifest import Merge
from models.preprocess import fit
from tests.tiny import MeanColor


def variant(
    of: Bundle, folder: Path, *, order: Sequence[int] = (), name: str | None = None, notice: str = "another digest"
) -> Bundle:
    """`of` once more, in `folder`. Its cluster `order[i]` becomes cluster i, in the network too."""
    manifest = of.manifest
    order = list(order) or list(range(len(manifest.clusters)))
    new = {old: i for i, old in enumerate(order)}
    return bundle.save(
        folder,
        name=name or manifest.name,
        method=manifest.method,
        input=manifest.input,
        code=manifest.code,
        clusters=[manifest.clusters[i] for i in order],
        hierarchy=[
            Merge(k=m.k, merge=(new[m.merge[0]], new[m.merge[1]]), into=new[m.into], height=m.height)
            for m in manifest.hierarchy
        ],
        provenance=manifest.provenance,
        encoder_onnx=_reordered(of.encoder_bytes(), order),
        centroids=of.centroids[order],
        golden=Golden(of.golden.image, np.argsort(order).astype(np.uint8)[of.golden.labels]),
        exemplars={new[k]: [file.read_bytes() for file in of.exemplars(k)] for k in new},
        report={},
        notice=notice,
    )


def coarser(of: Bundle, folder: Path, *, keep: Sequence[int], name: str | None = None) -> Bundle:
    """`of` with fewer clusters, those of `keep`, which look at a picture half as large again: another K, another size,
    other labels."""
    manifest = of.manifest
    height, width = manifest.input.size
    spec = manifest.input.model_copy(update={"size": (height * 3 // 2, width * 3 // 2)})
    fitted = fit(of.golden.image, spec)
    scores = MeanColor()(fitted.pixels[None]).scores[0][list(keep)]
    return bundle.save(
        folder,
        name=name or manifest.name,
        method=manifest.method,
        input=spec,
        code=manifest.code,
        clusters=[manifest.clusters[i].model_copy(update={"fraction": 1 / len(keep)}) for i in keep],
        hierarchy=[Merge(k=k, merge=(0, k), into=0, height=1.0) for k in range(len(keep) - 1, 1, -1)],
        provenance=manifest.provenance,
        encoder_onnx=_reordered(of.encoder_bytes(), list(keep)),
        centroids=of.centroids[list(keep)],
        golden=Golden(of.golden.image, assign.labels(scores, fitted.source, fitted.box)),
        exemplars={i: [file.read_bytes() for file in of.exemplars(k)] for i, k in enumerate(keep)},
        report={},
        notice="coarser",
    )


def _reordered(network: bytes, order: list[int]) -> bytes:
    """The tiny network with the rows of its last convolution in another order."""
    model = onnx.load_from_string(network)
    for tensor in model.graph.initializer:
        if tensor.name == "centroids":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[order], "centroids"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(order)
    return bytes(model.SerializeToString())
