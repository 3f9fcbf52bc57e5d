"""OpenVINO: the same scores as onnxruntime in float32, picky alike, and no image minds its neighbors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.bundle import Bundle, BundleError
from models.inference import self_test
from service.engines import autoselect, open_engine
from service.engines.base import EngineError
from service.engines.openvino_cpu import OpenVino
from service.settings import Settings
from tests.tiny import MeanColor, bands, mean_color_onnx

openvino = pytest.importorskip("openvino", reason="the `openvino` extra is not installed")
SETTINGS = Settings(engine="openvino", threads=1)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def engine(bundle: Bundle) -> OpenVino:
    return OpenVino(bundle, bundle.encoder_bytes(), SETTINGS, "openvino", "f32")


def test_it_is_the_network_it_holds(bundle: Bundle, engine: OpenVino) -> None:
    pixels = np.stack([bands(64, 96), bands(64, 96, (4, 3, 2, 1, 0))])
    got, expected = engine(pixels, code=True), MeanColor()(pixels, code=True)
    assert got.code is not None
    assert expected.code is not None
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(got.code, expected.code, atol=1e-5)
    assert engine(pixels).code is None
    assert (engine.name, engine.provider, list(engine.shapes)) == ("openvino", "cpu", [(64, 96)])
    assert self_test(bundle, engine) == 1.0


def test_an_image_gets_bit_for_bit_what_it_gets_alone(engine: OpenVino) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    together = engine(pixels).scores
    assert all((engine(pixels[i : i + 1]).scores[0] == together[i]).all() for i in range(5))


def test_an_answer_stays_when_the_next_one_comes(engine: OpenVino) -> None:
    first = engine(bands(64, 64)[None], code=True)
    assert first.code is not None
    scores, code = first.scores.copy(), first.code.copy()
    engine(bands(64, 64, (4, 3, 2, 1, 0))[None], code=True)
    assert (first.scores == scores).all()
    assert (first.code == code).all()


def test_shapes_come_in_any_order(engine: OpenVino) -> None:
    for size in ((64, 64), (128, 64), (64, 64), (64, 192)):
        pixels = bands(*size)[None]
        np.testing.assert_allclose(engine(pixels).scores, MeanColor()(pixels).scores, atol=1e-5)


def test_a_network_that_is_not_the_manifests_is_refused(make_bundle: Callable[..., Path]) -> None:
    model = onnx.load_from_string(mean_color_onnx())
    del model.graph.output[1]
    bundle = Bundle.load(make_bundle(encoder_onnx=model.SerializeToString()))
    with pytest.raises(BundleError, match="code"):
        open_engine(bundle, SETTINGS)


def test_rubbish_is_refused_in_one_line(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="cannot be opened") as error:
        open_engine(Bundle.load(make_bundle(encoder_onnx=b"rubbish")), SETTINGS)
    assert "\n" not in str(error.value)


def test_bfloat16_says_how_far_it_agrees_or_that_the_processor_lacks_it(bundle: Bundle) -> None:
    settings = Settings(engine="openvino-bf16", threads=1)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="TESSERA_ENGINE=openvino"):
            open_engine(bundle, settings)
        return
    engine = open_engine(bundle, settings)
    assert engine.name == "openvino-bf16"
    assert engine.note == "openvino-bf16: labels agree with onnxruntime's on 100.00% of the golden image"


def test_auto_measures_the_two_and_remembers(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoselect, "BUDGET_S", 0.02)
    settings = Settings(engine="auto", threads=1, state=tmp_path)
    first = open_engine(bundle, settings)
    assert first.name in ("onnxruntime", "openvino")
    assert first.note is not None
    assert first.note.startswith(f"{first.name} is the fastest here")
    assert open_engine(bundle, settings).note == first.note
