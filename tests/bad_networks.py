"""Networks that have to be refused: the tiny one (tests/tiny.py) with one thing wrong each.

Knows nothing of bundles. None is more than odd: what is wrong is there for our own rules to see.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Found = Literal["rules", "proof"]


class BadNetwork(NamedTuple):
    """An ONNX file's bytes, or none, and by what it is found: the `rules` for graphs, or the `proof` of the bundle."""

    name: str
    network: bytes
    found: Found = "rules"


def bad_networks(network: bytes) -> Iterator[BadNetwork]:
    """Every case, made of the tiny network."""

    def changed(name: str, change: Callable[[Any], object], found: Found = "rules") -> BadNetwork:
        model = onnx.load_from_string(network)
        change(model)
        return BadNetwork(name, bytes(model.SerializeToString()), found)

    for part in range(12):
        yield BadNetwork(f"cut-{part}", network[: len(network) * part // 12])
    yield BadNetwork("rubbish", b"rubbish")
    yield BadNetwork("flipped", b"\x88" + network[1:])
    yield changed("ir-99", lambda m: setattr(m, "ir_version", 99))
    yield changed("ir-none", lambda m: m.ClearField("ir_version"))
    yield changed("opset-99", lambda m: setattr(m.opset_import[0], "version", 99))
    yield changed("opset-1", lambda m: setattr(m.opset_import[0], "version", 1))
    yield changed("opset-none", lambda m: m.ClearField("opset_import"))
    yield changed("opset-twice", lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 17)))
    yield changed("domain-import", lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)))
    yield changed("domain-node", lambda m: setattr(m.graph.node[0], "domain", "com.example"))
    refused = """Loop If Scan RandomNormalLike Bernoulli Multinomial SequenceConstruct Optional StringNormalizer LSTM
        Dropout NonMaxSuppression Compress Unique Made-up"""
    for kind in (*refused.split(), ""):
        yield changed(f"operator-{kind or 'none'}", lambda m, kind=kind: setattr(m.graph.node[0], "op_type", kind))
    yield changed("no-nodes", lambda m: m.graph.ClearField("node"))
    absolute = helper.make_node("Abs", ["a"], ["b"])
    function = helper.make_function("f", "f", ["a"], ["b"], [absolute], [helper.make_opsetid("", 17)])
    yield changed("functions", lambda m: m.functions.append(function))
    yield changed("training", lambda m: m.training_info.add())
    yield changed(
        "subgraph",
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], []))),
    )
    yield changed("sparse", lambda m: m.graph.sparse_initializer.add())
    yield changed(
        "text-constant", lambda m: m.graph.node.insert(0, helper.make_node("Constant", [], ["t"], value_string="x"))
    )
    yield changed(
        "text-weights", lambda m: m.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"]))
    )
    yield changed(
        "complex-weights",
        lambda m: m.graph.initializer.append(helper.make_tensor("t", TensorProto.COMPLEX64, [1], [1j])),
    )
    yield changed("unsorted", lambda m: m.graph.node.append(_taken_out(m.graph.node, 0)))
    yield changed("two-of-a-name", lambda m: m.graph.node.append(m.graph.node[0]))
    yield changed("external", lambda m: _external(m.graph.initializer[2]))
    yield changed("external-constant", lambda m: m.graph.node.insert(0, _external_constant()))
    yield changed("weights-claim", lambda m: m.graph.initializer[2].dims.__setitem__(0, 2**40))
    yield changed("weights-negative", lambda m: m.graph.initializer[2].dims.__setitem__(0, -5))
    yield changed("weights-fewer", lambda m: setattr(m.graph.initializer[2], "raw_data", b"1234"))
    yield changed("shape-of-values", lambda m: _sized_by_pixels(m.graph))
    yield changed("no-code", lambda m: m.graph.output.pop(), "proof")
    yield changed(
        "five-inputs",
        lambda m: m.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])),
        "proof",
    )
    yield changed(
        "float-input", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT), "proof"
    )
    yield changed("six-clusters", lambda m: _weights(m, np.zeros((6, 3, 1, 1), np.float32)), "proof")
    yield changed("nan", lambda m: _weights(m, np.full((5, 3, 1, 1), np.nan, np.float32)), "proof")
    yield changed("infinite", lambda m: _weights(m, np.full((5, 3, 1, 1), np.inf, np.float32)), "proof")
    yield changed("zero", lambda m: _weights(m, np.zeros((5, 3, 1, 1), np.float32)), "proof")
    yield changed("wrong-attribute", lambda m: m.graph.node[1].attribute[0].ints.append(7), "proof")
    yield changed("finer-than-said", lambda m: _finer(m.graph), "proof")


def _taken_out(nodes: Any, i: int) -> Any:
    node = onnx.NodeProto()
    node.CopyFrom(nodes[i])
    del nodes[i]
    return node


def _external(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="NOTICE")


def _external_constant() -> Any:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "far")
    _external(tensor)
    return helper.make_node("Constant", [], ["far"], value=tensor)


def _weights(model: Any, values: Any) -> None:
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(values, "centroids"))


def _sized_by_pixels(graph: Any) -> None:
    """A constant as long as the image is bright."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one_long"], ["length"]),
        helper.make_node("ConstantOfShape", ["length"], ["zeros"]),
    ]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one_long"))


def _finer(graph: Any) -> None:
    """The window steps by a quarter of what the manifest says."""
    for attribute in graph.node[2].attribute:
        attribute.ints[:] = [2, 2]
