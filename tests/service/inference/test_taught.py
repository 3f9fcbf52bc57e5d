"""Classes in place of clusters, from what one pass left of an image."""

import io
from pathlib import Path

import numpy as np
import pytest

from models import assign, bundle
from models.bundle import Bundle
from models.class_file import ClassFile
from models.prototypes import code_at
from service.inference.results import Facts, NetworkOutput, Validity
from service.inference.taught import around, as_classes, decided, suggestions
from service.repository.class_store import ClassStore
from service.repository.classes import Classes
from tests.service.answers import PNG, labels, problem
from tests.service.fakes import FakeEngine
from tests.service.server import server_of
from tests.tiny import CENTROIDS, MeanColor, bands


@pytest.fixture
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def output_of(pixels: np.ndarray) -> NetworkOutput:
    scores, code = MeanColor()(pixels[None], code=True)
    assert code is not None
    return NetworkOutput(scores[0], code[0], (pixels.shape[0], pixels.shape[1]), (0, 0, 1, 1), Facts())


def as_file(tiny: Bundle, count: int) -> ClassFile:
    """So many classes, each of a code of its own."""
    rng = np.random.default_rng(0)
    classes = [
        {
            "id": id,
            "name": f"class {id}",
            "color": "#000000",
            "examples": [{"n": 1, "code": rng.normal(size=3).tolist(), "at": (0.5, 0.5)}],
        }
        for id in range(count)
    ]
    encoder = tiny.manifest.files["encoder.onnx"]
    return ClassFile.model_validate({"model": "tiny", "encoder": encoder, "dim": 3, "classes": classes})


def test_254_classes(tiny: Bundle, tmp_path: Path) -> None:
    classes = Classes(tiny, ClassStore(tmp_path))
    classes.fix(as_file(tiny, 254))
    output = output_of(bands(64, 104))
    found = as_classes(output, classes.state)
    assert found.scores.shape == (254, 8, 13)
    assert found.ids is not None
    assert found.ids.tolist() == list(range(254))
    assert found.code is output.code
    map_ = assign.labels(found.scores, output.source)
    assert len(np.unique(map_)) > 4
    sure = decided(tiny.manifest, found)
    assert sure is not None
    np.testing.assert_allclose(sure.margin, assign.margin(found.scores, found.code, (8, 13)), atol=1e-6)
    places = suggestions(found, sure, 50)
    assert 3 <= len(places) <= 50
    assert [place.margin for place in places] == sorted(place.margin for place in places)
    nowhere = NetworkOutput(
        output.scores, output.code, output.source, output.box, Facts(Validity.of(np.zeros((64, 104), bool)))
    )
    assert suggestions(nowhere, sure, 5) == ()


def test_a_line_between_two_things_is_clearer_than_a_place_that_is_unsure_all_around() -> None:
    margin = np.full((9, 12), 0.5, np.float32)
    margin[:, 3] = 0.0
    margin[5:8, 8:11] = 0.1
    smooth = around(margin)
    assert np.unravel_index(smooth.argmin(), smooth.shape) == (6, 9)
    assert smooth[6, 9] == pytest.approx(0.1)
    padded = np.pad(margin, 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    np.testing.assert_allclose(smooth, np.nanmean(windows, axis=(2, 3)), atol=1e-6)


def test_a_masks_code_is_the_mean_of_its_pixels() -> None:
    rng = np.random.default_rng(1)
    code = rng.normal(size=(5, 6, 9)).astype(np.float32)
    for size, box in (((48, 72), (0, 0, 1, 1)), ((31, 200), (0.1, 0.2, 0.7, 0.5)), ((3, 2), (0, 0, 1, 1))):
        mask = rng.random(size) < 0.3
        mask[0, 0] = True
        for how in ("bilinear", "nearest"):
            strips = assign.upsampled(code, size, box, how)  # type: ignore[arg-type]
            pixels = np.concatenate([strip for _, strip in strips], axis=1)[:, mask]
            mean = pixels.sum(axis=1)
            found = code_at(code, mask, box, how)  # type: ignore[arg-type]
            np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_model_that_compares_by_dot_products_is_taught_by_codes(tiny: Bundle, tmp_path: Path) -> None:
    manifest = tiny.manifest
    by_dots = bundle.save(
        tmp_path / "dots",
        name="dots",
        method="",
        input=manifest.input,
        code=manifest.code.model_copy(update={"assignment": "dot"}),
        clusters=manifest.clusters,
        hierarchy=manifest.hierarchy,
        provenance=manifest.provenance,
        encoder_onnx=tiny.encoder_bytes(),
        centroids=CENTROIDS * 2,
        golden=tiny.golden,
        exemplars={},
        report={},
        notice="",
    )
    with server_of(by_dots.path, tmp_path / "state")(lambda _: FakeEngine()) as client:
        plain = labels(client.post("/segment?format=npy", content=PNG))
        for id, x in ((3, 5), (7, 50)):
            client.put(f"/classes/{id}", json={"name": f"class {id}"})
            assert client.post(f"/classes/{id}/examples?x={x}&y=5", content=PNG).status_code == 201
        found = labels(client.post("/segment?format=npy&classes=true", content=PNG))
        assert (found[30, 5], found[30, 50]) == (3, 7)
        assert client.post("/segment?classes=true", content=PNG).json()["clusters"][0]["confidence"] > 0.2
        assert set(np.unique(labels(client.post("/segment?format=npy&classes=true&crf=fast", content=PNG)))) == {3, 7}
        assert len(client.get("/classes/suggest").json()["places"]) == 3
        assert (labels(client.post("/segment?format=npy", content=PNG)) == plain).all()


def test_classes_of_another_moment_are_not_mixed_up(tiny: Bundle, tmp_path: Path) -> None:
    with server_of(tiny.path, tmp_path / "state")(lambda _: FakeEngine()) as client:
        client.put("/classes/1", json={"name": "a", "clusters": [0, 1, 2]})
        client.put("/classes/2", json={"name": "b", "clusters": [3, 4]})
        asked = [f"/segment?format=npy&classes=true{more}" for more in ("", "&crf=fast", "&tile=always")]
        before = [labels(client.post(path, content=PNG)) for path in asked]
        client.put("/classes/1", json={"name": "a", "clusters": [3, 4]})
        client.put("/classes/2", json={"name": "b", "clusters": [0, 1, 2]})
        after = [labels(client.post(path, content=PNG)) for path in asked]
        assert all(np.array_equal(3 - one, other) for one, other in zip(before, after, strict=True))
        client.delete("/classes/1")
        lone = client.post("/segment?classes=true&crf=true", content=PNG).json()
        assert [c["id"] for c in lone["clusters"]] == [2]
        assert np.load(io.BytesIO(client.post("/segment?classes=true&format=npy", content=PNG).content)).min() == 2
        client.delete("/classes/2")
        assert "no class yet" in problem(client.post("/segment?classes=true", content=PNG), 422)
