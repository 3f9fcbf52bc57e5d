"""A bundle's network with other centroids: the same graph, one tensor of it replaced.

Knows nothing of how centroids are found. Nothing of the network is computed anew, so nothing of it can differ.
"""

import numpy as np
from onnx import checker, load_from_string, numpy_helper

from models import onnx_rules
from models.errors import TesseraError
from models.types import Array


def with_centroids(network: bytes, centroids: Array) -> bytes:
    """The network's file with other centroids, as many as there are.

    centroids  float32 [K, D]

    Raises TesseraError where the graph does not end in a comparison with centroids of that length.
    """
    model = load_from_string(network)
    graph = model.graph
    node = next((one for one in graph.node if "scores" in one.output), None)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = weights.get(node.input[1]) if node is not None and node.op_type == "Conv" and len(node.input) == 2 else None
    if kept is None or list(kept.dims[1:]) != [centroids.shape[1], 1, 1]:
        raise TesseraError(
            "the bundle's network does not end in a comparison with centroids, as those made by training do: train anew"
            " with another clusters.k"
        )
    kept.CopyFrom(numpy_helper.from_array(centroids.astype(np.float32)[:, :, None, None], kept.name))
    for output in graph.output:
        if output.name == "scores":
            output.type.tensor_type.shape.dim[1].dim_value = len(centroids)
    written = bytes(model.SerializeToString(deterministic=True))
    checker.check_model(written, full_check=True)
    onnx_rules.check(written)
    return written
