"""The comparison's own networks as bundles of ours, so that every server runs the same one.

    python -m benchmarks.peer_bundle MODELS OUT

MODELS is where the harness's `make_model.py` and `make_tiny.py` wrote (../shared/tools/peers); OUT gets the folders
`vit` and `tiny`. Every weight and every operation up to the scores stays: names change, the code becomes an output, and
what follows the tiny network's scores, argmax in blocks of 16 pixels, is the host's (`interpolation` "nearest").
The golden labels are those of the harness's own file, for a drawn street.

Knows nothing of servers: ONNX files in, bundle folders out.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, Golden, save
from models.errors import TesseraError
from models.inference import Predictor, segment
from models.manifest import CodeSpec, Provenance
from models.preprocess import InputSpec
from models.types import Array
from training.clustering.hierarchy import cosine_distance, hierarchy
from training.data.synthetic import street
from training.evaluation.exported import Exported
from training.export.provenance import tessera_version
from training.export.write_bundle import clusters

SIDE_PX, STRIDE = 320, 16


class PeerModelError(TesseraError):
    """A file that is not one of the harness's networks."""


@dataclass(frozen=True)
class Peer:
    """One network of the harness, and what of it becomes ours.

    file       the network; reference  the one whose `labels` every server has to repeat
    outputs    the graph's tensors that become `scores` [N, K, 20, 20] and `code` [N, D, 20, 20]
    centroids  float32 [K, D]
    """

    file: str
    reference: str
    outputs: Callable[[onnx.GraphProto], tuple[str, str]]
    centroids: Callable[[onnx.GraphProto], Array]
    assignment: Literal["cosine", "dot"]
    interpolation: Literal["bilinear", "nearest"]


def _only(graph: onnx.GraphProto, kind: str) -> onnx.NodeProto:
    found = [node for node in graph.node if node.op_type == kind]
    if len(found) != 1:
        raise PeerModelError(f"{len(found)} {kind} operators where the harness's network has one; make it again")
    return found[0]


def _weight(graph: onnx.GraphProto, name: str) -> Array:
    for tensor in graph.initializer:
        if tensor.name == name:
            return np.array(numpy_helper.to_array(tensor), np.float32)
    raise PeerModelError(f"there is no weight {name!r}: make the file with the harness's own script")


PEERS = {
    "vit": Peer(
        file="patch_u8.onnx",
        reference="labels_u8.onnx",
        outputs=lambda graph: (_only(graph, "Einsum").output[0], _only(graph, "Einsum").input[0]),
        centroids=lambda graph: _weight(graph, _only(graph, "Einsum").input[1]),
        assignment="cosine",
        interpolation="bilinear",
    ),
    "tiny": Peer(
        file="tiny_u8.onnx",
        reference="tiny_u8.onnx",
        outputs=lambda graph: (_only(graph, "Conv").output[0], _only(graph, "Conv").input[0]),
        centroids=lambda graph: _weight(graph, _only(graph, "Conv").input[1])[:, :, 0, 0],
        assignment="dot",  # the bias is in the graph's scores
        interpolation="nearest",
    ),
}


def rewired(model: onnx.ModelProto, scores: str, code: str) -> bytes:
    """The same network with our names: `pixels` in, the two tensors out, and no operator that they do not need."""
    names = {model.graph.input[0].name: "pixels", scores: "scores", code: "code"}
    kept: list[onnx.NodeProto] = []
    needed = {scores, code}
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    for node in kept:
        for edges in (node.input, node.output):
            edges[:] = [names.get(edge, edge) for edge in edges]
    graph = helper.make_graph(
        list(reversed(kept)),
        model.graph.name,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", SIDE_PX, SIDE_PX, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", None, None, None])
            for name in ("scores", "code")
        ],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def reference_labels(file: Path, images: Array) -> Array:
    """What the harness's network says: images uint8 [N, 320, 320, 3] → labels uint8 [N, 320, 320]."""
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def write(name: str, models: Path, folder: Path) -> tuple[Bundle, float]:
    """The bundle of one network of PEERS, and the share of the golden pixels that it labels as the harness does.

    Raises PeerModelError when a file is missing or is another network; BundleError from `save`.
    """
    peer = PEERS[name]
    for file in (peer.file, peer.reference):
        if not (models / file).is_file():
            raise PeerModelError(f"{file} is not in {models}: make it with the harness's scripts, or `make peers`")
    model = onnx.load(models / peer.file)
    centroids = peer.centroids(model.graph)
    network = rewired(model, *peer.outputs(model.graph))
    golden = street((SIDE_PX, SIDE_PX), seed=0)
    labels = reference_labels(models / peer.reference, golden[None])[0]
    fractions = [float(share) for share in np.bincount(labels.ravel(), minlength=len(centroids)) / labels.size]
    bundle = save(
        folder,
        name=f"peer-{name}",
        method="the comparison's network",
        input=InputSpec(size=(SIDE_PX, SIDE_PX), resize="stretch", multiple=STRIDE, max_side_px=SIDE_PX),
        code=CodeSpec(
            dim=centroids.shape[1],
            stride=STRIDE,
            assignment=peer.assignment,
            temperature=2.0,
            interpolation=peer.interpolation,
        ),
        clusters=clusters(fractions),
        hierarchy=hierarchy(cosine_distance(torch.from_numpy(centroids)), fractions),
        provenance=Provenance(
            tessera=tessera_version(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            recipe={},
            recipe_sha256=hashlib.sha256(b"{}").hexdigest(),
            seed=0,
            images=0,
            data="none: weights drawn by the harness",
            data_sha256=hashlib.sha256((models / peer.file).read_bytes()).hexdigest(),
            licence="none",
        ),
        encoder_onnx=network,
        centroids=centroids,
        golden=Golden(golden, labels),
        exemplars={},
        report={},
        notice="Random weights and a drawn street: made by programs, for measuring servers.\n",
    )
    return bundle, agreement(bundle, Exported(network), golden, labels)


def agreement(bundle: Bundle, encode: Predictor, image: Array, labels: Array) -> float:
    """The share of pixels that a bundle's own way labels as given."""
    return float((segment(bundle, encode, image) == labels).mean())


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=PEERS, action="append")
    given = parser.parse_args()
    try:
        for name in given.only or PEERS:
            bundle, equal = write(name, given.models, given.out / name)
            print(f"{bundle.ref}: {equal:.6f} of the golden image's labels are the harness's")
    except TesseraError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
