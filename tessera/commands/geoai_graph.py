"""A bundle's network as geoai-py and its QGIS plugin load one: a picture of any size in, every class's scores out.

    pixel_values  float32 [B, 3, H, W], 0..1  →  logits  float32 [B, 1 + K, H, W]

Class 0 is nobody's: geoai writes 0 as "no data", so that cluster k is class k + 1. What a server does around a network
is in the graph: the picture becomes the network's size as `models.preprocess.fit` makes it (Pillow's filter is one
matrix down and one across, which the graph works out from the size), and scores are brought back bilinearly.

Knows nothing of files.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle
from models.errors import UsageError

_OURS = "tessera/"  # before the names of everything that is added
_NEVER = -1e4  # the score of class 0


def geoai_graph(bundle: Bundle) -> bytes:
    """The network in its wrapping, an ONNX file. Raises UsageError for bundles that geoai's layout has no room for."""
    manifest = bundle.manifest
    if manifest.input.resize == "letterbox" or manifest.code.interpolation == "nearest":
        raise UsageError(f"{bundle.ref}: networks that letterbox, or have one label a patch, have no place there")
    model = onnx.load_from_string(bundle.encoder_bytes())
    graph = _Nodes()
    size = graph.add("Cast", graph.cut(graph.add("Shape", "pixel_values"), 2, 4), to=TensorProto.FLOAT)
    height, width = graph.cut(size, 0, 1), graph.cut(size, 1, 2)
    down, across = _network_size(graph, size, manifest.input)
    levels = graph.whole(graph.add("Mul", "pixel_values", graph.number(255.0)))
    narrow = graph.whole(
        graph.add("MatMul", levels, graph.add("Transpose", _filter(graph, width, across), perm=[1, 0]))
    )
    fitted = graph.whole(graph.add("MatMul", _filter(graph, height, down), narrow))
    clipped = graph.add("Clip", fitted, graph.number(0.0), graph.number(255.0))
    upright = graph.add("Transpose", clipped, perm=[0, 2, 3, 1])
    before = [*graph.taken(), helper.make_node("Cast", [upright], ["pixels"], to=TensorProto.UINT8)]
    grid = graph.add("Cast", graph.cut(graph.add("Shape", "scores"), 2, 4), to=TensorProto.FLOAT)
    rows = _filter(graph, graph.cut(grid, 0, 1), height)
    columns = graph.add("Transpose", _filter(graph, graph.cut(grid, 1, 2), width), perm=[1, 0])
    scores = graph.add("MatMul", rows, graph.add("MatMul", "scores", columns))
    scaled = graph.add("Mul", scores, graph.number(manifest.code.temperature))
    nobody = graph.add(
        "Add", graph.add("Mul", graph.cut(scaled, 0, 1, axis=1), graph.number(0.0)), graph.number(_NEVER)
    )
    after = [*graph.taken(), helper.make_node("Concat", [nobody, scaled], ["logits"], axis=1)]
    wrapped = helper.make_graph(
        [*before, *model.graph.node, *after],
        "tessera_for_geoai",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["batch", 1 + len(manifest.clusters), "height", "width"]
            )
        ],
        [*model.graph.initializer, *graph.constants],
    )
    made = helper.make_model(wrapped, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def sidecar(bundle: Bundle) -> dict[str, Any]:
    """What stands in the `.onnx.json`. Without a height and width geoai leaves the picture's size as it is."""
    clusters = bundle.manifest.clusters
    names = {"0": "no data", **{str(k + 1): cluster.name for k, cluster in enumerate(clusters)}}
    return {
        "model_name": bundle.ref,
        "task": "semantic-segmentation",
        "input_height": None,
        "input_width": None,
        "input_channels": 3,
        "output_names": ["logits"],
        "num_labels": len(names),
        "id2label": names,
        "colors": {str(k + 1): cluster.color for k, cluster in enumerate(clusters)},
        "digest": bundle.digest,
    }


class _Nodes:
    """Nodes and constants with names of their own."""

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self._nodes: list[Any] = []
        self._names = 0

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of the one output of a further node."""
        output = self._name()
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: Any) -> str:
        """The name of an array."""
        self.constants.append(numpy_helper.from_array(value, self._name()))
        return str(self.constants[-1].name)

    def number(self, value: float) -> str:
        """The name of one number, float32."""
        return self.constant(np.array(value, np.float32))

    def cut(self, name: str, start: int, end: int, axis: int = 0) -> str:
        """A part along an axis."""
        return self.add("Slice", name, *(self.constant(np.array([at], np.int64)) for at in (start, end, axis)))

    def whole(self, name: str) -> str:
        """Rounded to whole numbers, halves up."""
        return self.add("Floor", self.add("Add", name, self.number(0.5)))

    def taken(self) -> list[Any]:
        """The nodes that were added since the last time."""
        nodes, self._nodes = self._nodes, []
        return nodes

    def _name(self) -> str:
        self._names += 1
        return f"{_OURS}{self._names}"


def _network_size(graph: _Nodes, size: str, spec: Any) -> tuple[str, str]:
    """Height and width, float32 [1], that a picture of `size`, float32 [2], gets: `preprocess.fitted_size`."""
    if spec.resize == "stretch":
        return graph.constant(np.array(spec.size[:1], np.float32)), graph.constant(np.array(spec.size[1:], np.float32))
    short = graph.add("ReduceMin", size, keepdims=1, axes=[0])
    scale = graph.add("Div", graph.number(float(min(spec.size))), short)
    wanted = graph.add("Min", graph.add("Mul", size, scale), graph.number(float(spec.max_side_px)))
    multiple = graph.number(float(spec.multiple))
    steps = graph.add("Round", graph.add("Div", wanted, multiple))
    sides = graph.add("Max", graph.add("Mul", steps, multiple), multiple)
    return graph.cut(sides, 0, 1), graph.cut(sides, 1, 2)


def _filter(graph: _Nodes, source: str, target: str) -> str:
    """float32 [target, source]: each target cell's weights, a triangle as wide as it is in the source, at least 1."""
    scale = graph.add("Div", source, target)
    centers = graph.add("Mul", graph.add("Add", _count(graph, target), graph.number(0.5)), scale)
    cells = graph.add("Add", _count(graph, source), graph.number(0.5))
    columns = graph.add("Unsqueeze", centers, graph.constant(np.array([1], np.int64)))
    distance = graph.add("Abs", graph.add("Sub", columns, cells))
    reach = graph.add("Max", scale, graph.number(1.0))
    weights = graph.add("Relu", graph.add("Sub", graph.number(1.0), graph.add("Div", distance, reach)))
    total = graph.add("ReduceSum", weights, graph.constant(np.array([1], np.int64)), keepdims=1)
    return graph.add("Div", weights, total)


def _count(graph: _Nodes, length: str) -> str:
    """0, 1, … float32 [length]."""
    end = graph.add("Squeeze", length)
    return graph.add("Range", graph.number(0.0), end, graph.number(1.0))
