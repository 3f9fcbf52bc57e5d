"""Which graphs are taken. Most rules are broken by a case of tests/bad_bundles.py; here stands what passes, and why."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import onnx_rules
from models.bundle import BundleError
from service.settings import embedded
from tests.bad_bundles import bad_bundles
from tests.tiny import mean_color_onnx


def graph(*nodes: Any, weights: dict[str, Any] | None = None) -> bytes:
    """A network of these nodes from `pixels`."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", "H", "W", 3])
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    made = helper.make_model(
        helper.make_graph(nodes, "g", [pixels], [], given), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return bytes(made.SerializeToString())


def test_the_networks_that_come_with_the_house_are_taken() -> None:
    onnx_rules.check(mean_color_onnx())
    for folder in embedded():
        onnx_rules.check((folder / "encoder.onnx").read_bytes())


def test_every_operator_of_the_list_is_the_standards_and_none_has_a_graph_or_chance_in_it() -> None:
    for name in onnx_rules.OPERATORS:
        schema = onnx.defs.get_schema(name)
        assert all(attribute.type.name != "GRAPH" for attribute in schema.attributes.values()), name
        assert "seed" not in schema.attributes, name


@pytest.mark.parametrize("kind", ["rules"])
def test_every_graph_that_breaks_a_rule_is_refused(tiny_bundle: Path, tmp_path: Path, kind: str) -> None:
    broken = [case for case in bad_bundles(tiny_bundle) if case.found == kind]
    assert len(broken) > 40
    for case in broken:
        network = (case.write(tiny_bundle, tmp_path / case.name) / "encoder.onnx").read_bytes()
        with pytest.raises(BundleError, match=r"encoder\.onnx: ") as error:
            onnx_rules.check(network)
        assert "\n" not in str(error.value), case.name


SHAPE = helper.make_node("Shape", ["pixels"], ["shape"])
BRIGHT = [
    helper.make_node("Cast", ["pixels"], ["wide"], to=TensorProto.INT64),
    helper.make_node("ReduceMax", ["wide"], ["bright"], keepdims=0),
    helper.make_node("Reshape", ["bright", "one"], ["row"]),
]


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Reshape", "Slice", "Pad", "OneHot"])
def test_a_shape_may_follow_the_images_size_but_not_its_colors(kind: str) -> None:
    def using(size: str) -> list[Any]:
        given = {
            "ConstantOfShape": [size], "Slice": ["pixels", size, size], "OneHot": ["row", size, "pair"],
        }.get(kind, ["pixels", size])  # fmt: skip
        return [*BRIGHT, SHAPE, helper.make_node(kind, given, ["made"])]

    weights = {"one": np.array([1]), "pair": np.array([0, 1])}
    onnx_rules.check(graph(*using("shape"), weights=weights))
    onnx_rules.check(graph(*using("one"), weights=weights))
    with pytest.raises(BundleError, match=f"{kind}: a shape that depends on what an image shows"):
        onnx_rules.check(graph(*using("row"), weights=weights))


def test_the_shape_of_what_was_cut_by_color_counts_as_color_only_where_it_was_cut() -> None:
    with pytest.raises(BundleError, match="Slice: a shape"):  # and so nothing can be made of its shape
        onnx_rules.check(
            graph(*BRIGHT, helper.make_node("Slice", ["pixels", "row", "row"], ["cut"]), weights={"one": np.array([1])})
        )


def test_half_precision_and_values_that_are_listed_instead_of_raw_are_taken() -> None:
    listed = [
        helper.make_tensor("a", TensorProto.FLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("b", TensorProto.INT64, [0], []),
        helper.make_tensor("c", TensorProto.BOOL, [3], [True, False, True]),
        helper.make_tensor("d", TensorProto.DOUBLE, [], [0.5]),
        helper.make_tensor("e", TensorProto.INT4, [3], [1, 2, 3]),
    ]
    model = onnx.load_from_string(mean_color_onnx())
    model.graph.initializer.extend(listed)
    onnx_rules.check(bytes(model.SerializeToString()))
