"""The onnxruntime session: equal to the network it holds, picky about it, and never without a provider."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from models.bundle import Bundle, BundleError, self_test
from service import runtime
from service.runtime import CPU, CUDA, Runtime
from tests.tiny import MeanColor, bands, mean_color_onnx


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_it_is_the_network_it_holds(bundle: Bundle) -> None:
    run = Runtime(bundle, threads=1)
    pixels = np.stack([bands(64, 96), bands(64, 96, (4, 3, 2, 1, 0))])
    got, expected = run(pixels, code=True), MeanColor()(pixels, code=True)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    assert got.code is not None
    assert expected.code is not None
    np.testing.assert_allclose(got.code, expected.code, atol=1e-5)
    assert run(pixels).code is None
    assert list(run.shapes) == [(64, 96)]
    assert run.provider == "cpu"
    assert self_test(bundle, run) == 1.0


def test_labels_do_not_depend_on_the_batch(bundle: Bundle) -> None:
    run = Runtime(bundle, threads=1)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 64, 64, 3), np.uint8)
    together = run(pixels).scores
    for i in range(5):
        assert (run(pixels[i : i + 1]).scores[0].argmax(axis=0) == together[i].argmax(axis=0)).all()


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
        Runtime(bundle)


def test_rubbish_is_refused_in_one_line(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="cannot be opened") as error:
        Runtime(Bundle.load(make_bundle(encoder_onnx=b"rubbish")))
    assert "\n" not in str(error.value)


class Session:
    """An onnxruntime session that has CUDA until told otherwise."""

    works = True
    real = ort.InferenceSession

    def __init__(self, network: bytes, options: Any, providers: list[Any]) -> None:
        self._inner = Session.real(network, options, providers=[CPU])
        self._cuda = providers != [CPU]
        if self._cuda and not Session.works:
            raise RuntimeError("libcudart.so.12: cannot open shared object file\n[a stack]")

    def get_providers(self) -> list[str]:
        return [CUDA, CPU] if self._cuda else [CPU]

    def run(self, *args: Any) -> Any:
        if self._cuda and not Session.works:
            raise RuntimeError("CUDA error 700: an illegal memory access")
        return self._inner.run(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    monkeypatch.setattr(runtime.ort, "InferenceSession", Session)
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(Session, "works", True)
    return Session


def test_cuda_is_taken_when_it_works(bundle: Bundle, cuda: type[Session]) -> None:
    assert Runtime(bundle).provider == "cuda"
    assert Runtime(bundle, provider="cpu").provider == "cpu"


def test_cuda_that_does_not_start_leaves_the_cpu(
    bundle: Bundle, cuda: type[Session], caplog: pytest.LogCaptureFixture
) -> None:
    cuda.works = False
    run = Runtime(bundle)
    assert run.provider == "cpu"
    assert "libcudart" in caplog.text
    assert "stack" not in caplog.text
    assert self_test(bundle, run) == 1.0


def test_cuda_lost_while_serving_leaves_the_cpu(
    bundle: Bundle, cuda: type[Session], caplog: pytest.LogCaptureFixture
) -> None:
    run = Runtime(bundle)
    pixels = bands(64, 64)[None]
    before = run(pixels).scores
    cuda.works = False
    assert (run(pixels).scores == before).all()
    assert run.provider == "cpu"
    assert "the CPU goes on" in caplog.text


def test_asking_for_cuda_where_there_is_none_warns(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with caplog.at_level(logging.WARNING):
        assert Runtime(bundle, provider="cuda").provider == "cpu"
    assert "`gpu` extra" in caplog.text
