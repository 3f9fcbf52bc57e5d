"""The harness's networks as bundles: names change, numbers do not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import peer_bundle
from models.inference import segment
from training.evaluation.exported import Exported

SIDE, CELLS, K = 320, 20, 4


def like_tiny(file: Path) -> None:
    """A network with the harness's tiny one's parts: every sixteenth pixel, 1×1 convolution, blocks of its argmax."""
    rng = np.random.default_rng(0)
    constants = {
        "starts": np.array([8, 8]), "ends": np.array([SIDE, SIDE]), "axes": np.array([1, 2]),
        "steps": np.array([16, 16]), "half": np.array(128, np.float32),
        "c.weight": rng.normal(size=(K, 3, 1, 1)).astype(np.float32), "c.bias": np.zeros(K, np.float32),
        "blocks": np.array([1, 1, 16, 1, 16]), "pixels_shape": np.array([-1, SIDE, SIDE]), "inner": np.array([2, 4]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["every16"]),
        helper.make_node("Transpose", ["every16"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "half"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "c.weight", "c.bias"], ["conv2d"]),
        helper.make_node("ArgMax", ["conv2d"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["best8"], to=TensorProto.UINT8),
        helper.make_node("Unsqueeze", ["best8", "inner"], ["unsqueezed"]),
        helper.make_node("Expand", ["unsqueezed", "blocks"], ["expanded"]),
        helper.make_node("Reshape", ["expanded", "pixels_shape"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "like_tiny",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)


def test_the_tiny_network_keeps_its_labels(tmp_path: Path) -> None:
    like_tiny(tmp_path / "tiny_u8.onnx")
    bundle, equal = peer_bundle.write("tiny", tmp_path, tmp_path / "bundle")
    assert equal == 1.0
    photo = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    wanted = peer_bundle.reference_labels(tmp_path / "tiny_u8.onnx", photo[None])[0]
    assert len(np.unique(wanted)) > 1
    assert (segment(bundle, Exported(bundle.encoder_bytes()), photo) == wanted).all()


def test_what_follows_the_scores_is_left_out_and_the_code_meets_the_weights(tmp_path: Path) -> None:
    like_tiny(tmp_path / "tiny_u8.onnx")
    bundle, _ = peer_bundle.write("tiny", tmp_path, tmp_path / "bundle")
    graph = onnx.load_from_string(bundle.encoder_bytes()).graph
    assert [node.op_type for node in graph.node] == ["Slice", "Transpose", "Cast", "Div", "Conv"]
    assert {tensor.name for tensor in graph.initializer} == {
        "starts", "ends", "axes", "steps", "half", "c.weight", "c.bias",
    }  # fmt: skip
    found = Exported(bundle.encoder_bytes())(bundle.golden.image[None], code=True)
    assert found.scores.shape == (1, K, CELLS, CELLS)
    assert found.code is not None
    np.testing.assert_allclose(np.einsum("kd,bdhw->bkhw", bundle.centroids, found.code), found.scores, atol=1e-5)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(peer_bundle.PeerModelError, match=r"patch_u8\.onnx is not in"):
        peer_bundle.write("vit", tmp_path, tmp_path / "bundle")
    like_tiny(tmp_path / "patch_u8.onnx")
    like_tiny(tmp_path / "labels_u8.onnx")
    with pytest.raises(peer_bundle.PeerModelError, match="0 Einsum operators"):
        peer_bundle.write("vit", tmp_path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
