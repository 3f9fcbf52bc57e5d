"""8-bit matrix products: close to the float32 network, made by a process of its own that says what it lacks."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle
from service.engines import onnxruntime_int8, open_engine
from service.engines.base import EngineError
from service.engines.onnxruntime_int8 import quantized
from service.settings import Settings
from tests.tiny import CENTROIDS, bands, mean_color_onnx

pytest.importorskip("onnxruntime.quantization")
SETTINGS = Settings(engine="onnxruntime-int8", threads=1)


def matmul_onnx() -> bytes:
    """The tiny network with a matrix product in place of its last convolution."""
    model = onnx.load_from_string(mean_color_onnx())
    graph = model.graph
    del graph.node[-1]
    graph.node.extend(
        [
            helper.make_node("Transpose", ["code"], ["last"], perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["last", "weights"], ["product"]),
            helper.make_node("Transpose", ["product"], ["scores"], perm=[0, 3, 1, 2]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(CENTROIDS.T), "weights"))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_it_quantizes_matrix_products_and_says_how_far_it_agrees(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.load(make_bundle(encoder_onnx=matmul_onnx()))
    engine = open_engine(bundle, SETTINGS)
    exact = open_engine(bundle, Settings(engine="onnxruntime", threads=1))
    pixels = np.stack([bands(64, 64), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])
    got, wanted = engine(pixels).scores, exact(pixels).scores
    assert 0 < np.abs(got - wanted).max() < 0.05  # 8 bits, not 32
    assert (engine(pixels[:1]).scores[0] == got[0]).all()
    assert (engine.name, engine.provider) == ("onnxruntime-int8", "cpu")
    assert engine.note == "onnxruntime-int8: labels agree with onnxruntime's on 100.00% of the golden image"


def test_weights_are_8_bit_integers_with_a_scale_a_channel() -> None:
    tensors = {tensor.name: tensor for tensor in onnx.load_from_string(quantized(matmul_onnx())).graph.initializer}
    assert tensors["weights_quantized"].data_type == TensorProto.INT8
    assert list(tensors["weights_scale"].dims) == [len(CENTROIDS)]


@pytest.mark.parametrize(("features", "bits"), [({"avx512_vnni"}, "8"), ({"avx2"}, "7")])
def test_processors_that_sum_in_16_bits_get_7(monkeypatch: pytest.MonkeyPatch, features: set[str], bits: str) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        Path(command[-2]).write_bytes(b"network")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(onnxruntime_int8.hardware, "flags", lambda: frozenset(features))
    monkeypatch.setattr(onnxruntime_int8.subprocess, "run", run)
    assert quantized(b"") == b"network"
    assert asked[0][-1] == bits


def test_what_went_wrong_is_said_in_one_line() -> None:
    with pytest.raises(EngineError, match=r"quantizing failed: .*set TESSERA_ENGINE=auto") as error:
        quantized(b"rubbish")
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
