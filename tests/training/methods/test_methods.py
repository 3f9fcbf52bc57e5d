"""What every method in the folder must do, whatever it is called; and that a further one is one file."""

import importlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.inference import segment, self_test
from tests.service.server import server_of
from tests.training.few_steps import few_steps, smallest_backbone
from tests.training.small_run import draw, make, small_run
from training import methods, pipeline, train
from training.data.images import Images
from training.evaluation.exported import Exported
from training.methods.base import Method
from training.trainer import loop
from training.trainer.interruption import Interrupted

TOY = Path(__file__).parents[1] / "toy_method.py"


@pytest.fixture(scope="module", params=methods.names())
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make the method small: its name, its backbone, its counts."""
    name = request.param
    return [*smallest_backbone(name, tmp_path_factory.mktemp(name)), *few_steps(name)]


def fitted(folder: Path, overrides: list[str], images: Images, stop_after: int | None = None) -> Method:
    """Trained to the end, or stopped by a signal after so many steps, then gone on with from the checkpoint."""
    run = small_run(folder, *overrides, images=images)
    method: Method = make(run)
    stages = method.stages()
    if stop_after is not None:
        done = iter(range(1, 1000))

        def stopping(after_step):  # type: ignore[no-untyped-def]
            def step() -> None:
                after_step()
                if next(done) == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)

            return step

        with pytest.raises(Interrupted):
            loop.fit(method, [replace(stage, after_step=stopping(stage.after_step)) for stage in stages], run)
        method = make(run)
        stages = method.stages()
    loop.fit(method, stages, run)
    lines = loop.read_log(run.log)
    assert {line["stage"] for line in lines} == {stage.name for stage in stages}
    assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    return method


def test_trains_to_finite_weights_and_resumes_to_the_same_bits(small, tmp_path):
    images = draw(tmp_path / "images")
    whole = fitted(tmp_path / "whole", small, images)
    total = sum(stage.steps for stage in whole.stages())
    assert total >= 2 or not whole.stages()  # which learns nothing: k-means of frozen features
    assert all(bool(torch.isfinite(value).all()) for value in whole.state_dict().values())
    for stop_after in {1, total - 1} if total else ():
        resumed = fitted(tmp_path / f"stopped-{stop_after}", small, images, stop_after)
        for key, wanted in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], wanted), (stop_after, key)
        found, wanted = resumed.centroids(), whole.centroids()
        assert (found is None and wanted is None) or torch.equal(found, wanted)


@pytest.mark.slow  # float32 is quick, above
def test_resumes_to_the_same_bits_in_bfloat16_too(small, tmp_path):
    images, small = draw(tmp_path / "images"), [*small, "compute.precision=bfloat16"]
    whole = fitted(tmp_path / "whole", small, images)
    if not whole.stages():
        pytest.skip("nothing is learned")
    resumed = fitted(tmp_path / "stopped", small, images, sum(stage.steps for stage in whole.stages()) - 1)
    assert all(torch.equal(resumed.state_dict()[key], wanted) for key, wanted in whole.state_dict().items())


def test_exports_a_bundle_that_loads_and_answers(small, tmp_path):
    run = small_run(tmp_path, *small, "export.exemplars=0")
    pipeline.train(run)
    answers(Bundle.load(run.folder / "bundle"), clusters=3)


def answers(bundle: Bundle, clusters: int) -> None:
    """The bundle replays its golden image and labels photos of any shape; its report tells how clusters are used."""
    session = Exported(bundle.encoder_bytes())
    assert self_test(bundle, session) >= 0.99
    for shape in ((64, 64), (70, 110), (120, 50)):
        photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        labels = segment(bundle, session, photo)
        assert labels.shape == shape
        assert labels.max() < clusters == len(bundle.manifest.clusters)
    usage = bundle.report()["usage"]
    assert 0 <= usage["entropy"] <= 1 + 1e-9
    assert sum(usage["fractions"]) == pytest.approx(1)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The toy method's file where the registry looks, and nothing else changed."""
    folder = tmp_path / "more_methods"
    folder.mkdir()
    shutil.copy(TOY, folder / "toy.py")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    importlib.invalidate_caches()
    yield "toy"
    sys.modules.pop("training.methods.toy")
    del methods.toy  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_fifth_method_is_one_file(toy, tmp_path):
    assert toy in methods.names()
    photos, out = tmp_path / "photos", tmp_path / "run"
    draw(photos)
    # Exactly what a person types: `tessera train --data photos --out run --method toy --set …`
    override = ["clusters.k=3", "toy.steps=25", "input.size=64", "input.train_size=64", "workers=0"]
    train.command(data=photos, out=out, method=toy, override=override, device="cpu")
    bundle = Bundle.load(out / "bundle")
    assert bundle.manifest.provenance.recipe["toy"]["steps"] == 25
    answers(bundle, clusters=3)
    losses = [line["loss"] for line in loop.read_log(out / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    png = io.BytesIO()
    Image.open(photos / "0.png").save(png, "PNG")
    with server_of(bundle.path, tmp_path / "state")() as client:
        answer = client.post("/segment?format=png", content=png.getvalue())
        with Image.open(io.BytesIO(answer.content)) as served:
            expected = segment(bundle, Exported(bundle.encoder_bytes()), np.asarray(Image.open(photos / "0.png")))
            assert (np.asarray(served) == expected).all()


def test_the_toy_method_keeps_the_promises_of_the_others(toy, tmp_path):
    images = draw(tmp_path / "images")
    small = [f"method={toy}", "toy.steps=5"]
    whole = fitted(tmp_path / "whole", small, images)
    resumed = fitted(tmp_path / "stopped", small, images, stop_after=3)
    assert all(torch.equal(resumed.state_dict()[key], wanted) for key, wanted in whole.state_dict().items())
    assert json.loads((tmp_path / "whole" / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
