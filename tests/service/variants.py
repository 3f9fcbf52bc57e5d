"""Bundles like another one: under another name, of another digest, with the clusters under other ids.

Knows nothing of the service.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models import bundle
from models.bundle import Bundle, Golden
from models.manifest import Merge


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


def _reordered(network: bytes, order: list[int]) -> bytes:
    """The tiny network with the rows of its last convolution in another order."""
    model = onnx.load_from_string(network)
    for tensor in model.graph.initializer:
        if tensor.name == "centroids":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[order], "centroids"))
    return bytes(model.SerializeToString())
