"""`tessera export --geoai`: run as geoai-py's reader runs a network, it says what a server says, one class higher."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.bundle import Bundle
from models.errors import UsageError
from models.inference import segment
from service.settings import embedded
from tessera.commands import export
from tessera.commands.geoai_graph import geoai_graph
from tests.tiny import MeanColor, bands

SIZES = [(60, 100), (64, 64), (37, 211), (500, 700), (7, 5)]


class GeoaiReader:
    """What `ONNXGeoModel.predict` of geoai-py 0.40.1 does with an RGB picture that is not cut into tiles."""

    def __init__(self, path: Path) -> None:
        self.metadata = json.loads(path.with_name(f"{path.name}.json").read_text())
        self.id2label = {int(key): name for key, name in self.metadata["id2label"].items()}
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert self.metadata["task"] == "semantic-segmentation"
        assert self.metadata.get("input_height") is None  # else it would stretch the picture to that size
        assert not isinstance(self.session.get_inputs()[0].shape[2], int)

    def predict(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        tensor = (image.astype(np.float32) / 255.0).transpose(2, 0, 1)[np.newaxis]
        names = [output.name for output in self.session.get_outputs()]
        logits = self.session.run(names, {self.session.get_inputs()[0].name: tensor})[0]
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        mask = (exp / exp.sum(axis=1, keepdims=True)).argmax(axis=1).squeeze()
        assert mask.shape == image.shape[:2]  # else it would be stretched
        return np.asarray(mask.astype(np.uint8))


def exported(monkeypatch: pytest.MonkeyPatch, bundle: Path, out: Path) -> GeoaiReader:
    monkeypatch.setattr(sys, "argv", ["tessera export", str(bundle), "--geoai", str(out)])
    with pytest.raises(SystemExit) as ended:
        export.main()
    assert ended.value.code == 0
    (network,) = out.glob("*.onnx")
    return GeoaiReader(network)


def test_labels_are_a_servers_one_class_higher(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = exported(monkeypatch, tiny_bundle, tmp_path / "new")
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'tiny.onnx'}\n"
    assert reader.id2label == {0: "no data", 1: "red", 2: "green", 3: "blue", 4: "white", 5: "black"}
    bundle, rng = Bundle.load(tiny_bundle), np.random.default_rng(3)
    for height, width in SIZES:
        plain = bands(height, width)
        grain = np.clip(plain.astype(int) + rng.integers(-90, 90, plain.shape), 0, 255).astype(np.uint8)
        for image in (plain, grain):
            differ = reader.predict(image) - 1 != segment(bundle, MeanColor(), image)
            assert differ.sum() <= max(1, differ.size // 100), (height, width)


@pytest.mark.slow
def test_the_embedded_default_repeats_its_golden_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    golden = Bundle.load(embedded()[0]).golden
    reader = exported(monkeypatch, embedded()[0], tmp_path)
    assert (reader.predict(golden.image) - 1 == golden.labels).mean() > 0.9995


def test_a_network_that_has_no_place_in_that_layout_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    boxed = bundle.manifest.input.model_copy(update={"resize": "letterbox"})
    manifest = bundle.manifest.model_copy(update={"input": boxed})
    with pytest.raises(UsageError, match="letterbox"):
        geoai_graph(Bundle(bundle.path, manifest, bundle.digest, bundle.centroids, bundle.golden))
