"""A whole bundle whose labels are known by eye, and its network as a test double.

Knows nothing of training: the network is an average over 8×8 pixels and five color directions.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models import assign, bundle, inference, manifest
from models.io.encode import encode
from models.preprocess import InputSpec, fit

STRIDE = 8
COLORS = {  # what each cluster looks like, in the order of the ids
    "red": (230, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 50, 220),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
CENTROIDS = (
    np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [-1, -1, -1]], np.float32) / np.float32(3**0.5)
).astype(np.float32)  # fmt: skip


def bands(height: int = 60, width: int = 100, order: tuple[int, ...] = (0, 1, 2, 3, 4)) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]: upright bands of equal width, one color of COLORS each, in `order`."""
    colors = np.array(list(COLORS.values()), np.uint8)[list(order)]
    columns = np.arange(width) * len(order) // width
    return np.ascontiguousarray(np.broadcast_to(colors[columns], (height, width, 3)))


class MeanColor:
    """An Encoder in numpy: the mean color of every 8×8 block, −1..1, against CENTROIDS."""

    def __call__(self, pixels: NDArray[np.uint8], *, code: bool = False) -> inference.Prediction:
        b, height, width, _ = pixels.shape
        blocks = pixels.reshape(b, height // STRIDE, STRIDE, width // STRIDE, STRIDE, 3).astype(np.float32)
        means = (blocks.mean(axis=(2, 4)) / 127.5 - 1).transpose(0, 3, 1, 2)
        return inference.Prediction(np.einsum("kd,bdhw->bkhw", CENTROIDS, means), means if code else None)


def mean_color_onnx() -> bytes:
    """`MeanColor` as an ONNX file's bytes."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Div", ["means", "half"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["code"]),
        helper.make_node("Conv", ["code", "centroids"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_color",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", "H", "W", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", len(CENTROIDS), "h", "w"]),
            helper.make_tensor_value_info("code", TensorProto.FLOAT, ["B", 3, "h", "w"]),
        ],
        [
            numpy_helper.from_array(np.array(127.5, np.float32), "half"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(CENTROIDS[:, :, None, None], "centroids"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_tiny_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    encoder_onnx: bytes | None = None,
    familiarity: manifest.Familiarity | None = None,
) -> bundle.Bundle:
    """A sound bundle of five color clusters in `folder`, through `models.bundle.save`."""
    spec = InputSpec(size=(64, 64), resize="short_side", multiple=STRIDE, max_side_px=512)
    golden = bands(48, 80)
    fitted = fit(golden, spec)
    labels = assign.labels(MeanColor()(fitted.pixels[None]).scores[0], fitted.source, fitted.box)
    nothing = hashlib.sha256(b"").hexdigest()
    patches = [np.full((24, 24, 3), color, np.uint8) for color in COLORS.values()]
    return bundle.save(
        folder,
        name=name,
        method="mean color",
        input=spec,
        code=manifest.CodeSpec(dim=3, stride=STRIDE, assignment="cosine", temperature=2.0),
        clusters=[
            manifest.Cluster(name=word, color="#{:02x}{:02x}{:02x}".format(*color), fraction=0.2)
            for word, color in COLORS.items()
        ],
        hierarchy=[
            manifest.Merge(k=4, merge=(1, 2), into=1, height=0.9),
            manifest.Merge(k=3, merge=(0, 3), into=3, height=1.1),
            manifest.Merge(k=2, merge=(1, 4), into=4, height=1.3),
        ],
        familiarity=familiarity,
        provenance=manifest.Provenance(
            tessera="0",
            created="2026-01-01T00:00:00Z",
            recipe={},
            recipe_sha256=nothing,
            seed=0,
            images=0,
            data="drawn by a program",
            data_sha256=nothing,
            licence="none",
        ),
        encoder_onnx=encoder_onnx or mean_color_onnx(),
        centroids=CENTROIDS,
        golden=bundle.Golden(golden, labels),
        exemplars={i: [encode(patch, "webp")] * 2 for i, patch in enumerate(patches)},
        report={},
        notice="Drawn by a program; no rights reserved.\n",
    )
