"""onnxruntime on the CPU: equal to the network it holds, picky about it, and no image minds its neighbors."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.bundle import Bundle, BundleError
from models.inference import self_test
from service.engines.onnxruntime_cpu import CPU, OnnxRuntime, session
from service.settings import Settings
from tests.tiny import MeanColor, bands, mean_color_onnx

SETTINGS = Settings(engine="onnxruntime", threads=1)


def opened(bundle: Bundle) -> OnnxRuntime:
    return OnnxRuntime(bundle, bundle.encoder_bytes(), SETTINGS)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_it_is_the_network_it_holds(bundle: Bundle) -> None:
    run = opened(bundle)
    pixels = np.stack([bands(64, 96), bands(64, 96, (4, 3, 2, 1, 0))])
    got, expected = run(pixels, code=True), MeanColor()(pixels, code=True)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    assert got.code is not None
    assert expected.code is not None
    np.testing.assert_allclose(got.code, expected.code, atol=1e-5)
    assert run(pixels).code is None
    assert list(run.shapes) == [(64, 96)]
    assert (run.name, run.provider, run.note) == ("onnxruntime", "cpu", None)
    assert self_test(bundle, run) == 1.0


def test_an_image_gets_bit_for_bit_what_it_gets_alone(bundle: Bundle) -> None:
    run = opened(bundle)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    together = run(pixels, code=True)
    assert together.code is not None
    for i in range(5):
        alone = run(pixels[i : i + 1], code=True)
        assert alone.code is not None
        assert (alone.scores[0] == together.scores[i]).all()
        assert (alone.code[0] == together.code[i]).all()


def test_an_image_goes_in_as_it_is_and_code_stays_in_the_network(bundle: Bundle) -> None:
    run = opened(bundle)
    asked: list[tuple[list[str], Any]] = []
    inner = run._session

    class Watched:
        def run(self, outputs: list[str], feed: dict[str, Any]) -> Any:
            asked.append((outputs, feed["pixels"]))
            return inner.run(outputs, feed)

    run._session = Watched()
    pixels = bands(64, 64)[None]
    run(pixels)
    run(pixels[:, :, ::-1], code=True)
    assert [outputs for outputs, _ in asked] == [["scores"], ["scores", "code"]]
    assert np.shares_memory(asked[0][1], pixels)
    assert asked[1][1].flags.c_contiguous


def test_it_keeps_no_second_copy_of_the_network(bundle: Bundle) -> None:
    assert session(bundle.encoder_bytes(), SETTINGS, [CPU])._model_bytes is None


def test_warming_runs_at_each_shape(bundle: Bundle) -> None:
    run = opened(bundle)
    run.warm([(64, 64), (64, 128)])
    assert list(run.shapes) == [(64, 64), (64, 128)]


def changed(change: Callable[[Any], None]) -> bytes:
    model = onnx.load_from_string(mean_color_onnx())
    change(model.graph)
    return bytes(model.SerializeToString())


def rename_input(graph: Any) -> None:
    graph.input[0].name = graph.node[0].input[0] = "image"


def drop_code(graph: Any) -> None:
    del graph.output[1]


def float_input(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def six_clusters(graph: Any) -> None:
    graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.zeros((6, 3, 1, 1), np.float32), "centroids"))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6


@pytest.mark.parametrize(
    ("change", "says"),
    [(rename_input, "pixels"), (drop_code, "code"), (float_input, "uint8"), (six_clusters, "5 on axis 1")],
)
def test_a_network_that_is_not_the_manifests_is_refused(
    make_bundle: Callable[..., Path], change: Callable[[Any], None], says: str
) -> None:
    bundle = Bundle.load(make_bundle(encoder_onnx=changed(change)))
    with pytest.raises(BundleError, match=says):
        opened(bundle)


def test_rubbish_is_refused_in_one_line(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="cannot be opened") as error:
        opened(Bundle.load(make_bundle(encoder_onnx=b"rubbish")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["service.engines", "training"])
def test_onnxruntime_tells_nobody_of_its_use(package: str, tmp_path: Path) -> None:
    code = f"import {package}, onnxruntime; onnxruntime.SessionOptions()"
    quiet = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    found = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "CI": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=quiet | found)
    assert not list(tmp_path.rglob("*onnxruntime*"))
