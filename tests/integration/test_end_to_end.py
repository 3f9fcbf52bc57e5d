"""Two steps of training on eight small images → bundle → onnxruntime → labels → HTTP."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from models.bundle import Bundle
from models.inference import segment, self_test
from tests.service.server import server_of
from training import train
from training.data.synthetic import street
from training.evaluation.exported import Exported

FEW_STEPS = {
    "stego": [
        "backbone.name=test_vit", "backbone.weights=random", "input.train_size=64", "input.size=64",
        "stego.steps=2", "stego.code_dim=8", "clusters.k=4",
    ],
    "picie": [
        "backbone.name=test_resnet", "backbone.weights=random", "input.train_size=64", "input.size=64",
        "picie.epochs=1", "picie.code_dim=8", "clusters.k=4", "export.exemplars=0",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Photos <i>"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(street((64, 64), seed=i)).save(folder / f"{i}.png")
    (folder / "broken & bad.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module", params=[pytest.param("picie", marks=pytest.mark.slow), "stego"])
def trained(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / request.param
    train.command(out=out, data=photos, method=request.param, override=FEW_STEPS[request.param], device="cpu")
    return out


def test_the_bundle_computes_what_training_computed(trained: Path) -> None:
    bundle = Bundle.load(trained / "bundle")
    session = Exported(bundle.encoder_bytes())
    assert self_test(bundle, session) >= 0.99
    image = street((80, 120), seed=99)
    labels = segment(bundle, session, image)
    assert labels.shape == (80, 120)
    assert (labels == segment(bundle, session, np.ascontiguousarray(image))).all()
    assert sum(c.fraction for c in bundle.manifest.clusters) == pytest.approx(1, abs=1e-6)
    assert bundle.manifest.provenance.images == 8


def test_the_service_takes_the_bundle_as_it_is(trained: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(trained / "bundle")
    image = street((80, 120), seed=7)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    with server_of(bundle.path, tmp_path)() as client:
        answer = client.post("/segment?format=png", content=png.getvalue())
        assert answer.headers["x-model"] == bundle.ref
        with Image.open(io.BytesIO(answer.content)) as labels:
            assert labels.mode == "P"
            assert (np.asarray(labels) == segment(bundle, Exported(bundle.encoder_bytes()), image)).all()
        clusters = client.get("/clusters").json()["clusters"]
        assert sum(cluster["fraction"] for cluster in clusters) == pytest.approx(1)
        for url in (url for cluster in clusters for url in cluster["exemplars"]):
            with Image.open(io.BytesIO(client.get(url).content)) as patch:
                assert patch.format == "WEBP"


def test_the_report_is_one_file_with_every_name_escaped(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "broken &amp; bad.jpg" in page
    assert "Photos <i>" not in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert (trained / "skipped.txt").read_text().startswith("broken & bad.jpg\t")
    assert json.loads((trained / "bundle" / "report.json").read_text())["skipped"] == 1


def test_resuming_a_finished_run_writes_the_same_bundle(trained: Path) -> None:
    before = Bundle.load(trained / "bundle")
    train.command(out=trained, resume=True, device="cpu")
    after = Bundle.load(trained / "bundle")
    assert before.manifest.files["encoder.onnx"] == after.manifest.files["encoder.onnx"]
    assert before.manifest.files["golden.npz"] == after.manifest.files["golden.npz"]


def test_a_run_is_not_started_twice_nor_resumed_with_other_settings(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = trained.name

    def refused(**how: object) -> str:
        with pytest.raises(typer.Exit) as left:
            train.command(**{"out": trained, "device": "cpu", **how})  # type: ignore[arg-type]
        assert left.value.exit_code == 2
        return " ".join(capsys.readouterr().err.split())

    assert "add --resume to go on" in refused(data=photos)
    assert "seed: 0, here 5" in refused(resume=True, method=method, override=[*FEW_STEPS[method], "seed=5"])
    other = tmp_path / "other"
    other.mkdir()
    for i in range(5):
        Image.fromarray(street((64, 64), seed=i)).save(other / f"{i}.png")
    assert "the images it began with" in refused(resume=True, data=other)
    assert "no run to go on with" in refused(out=tmp_path / "new", resume=True)
    assert "is not empty" in refused(out=photos, data=photos)
    assert "--data is missing" in refused(out=tmp_path / "newer")
    assert "did you mean clusters.k?" in refused(out=tmp_path / "newest", data=photos, override=["clusters.kk=3"])
