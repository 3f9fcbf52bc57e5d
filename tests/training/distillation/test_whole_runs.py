"""A run with a student from its images to its bundle, of a finished teacher and of its own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.inference import segment, self_test
from tests.tiny import write_tiny_bundle
from tests.training.small_run import small_run
from training import pipeline
from training.config.run import Run
from training.data.images import Images
from training.data.synthetic import street
from training.evaluation.exported import Exported

STUDENT = ["student.backbone=test_resnet", "student.batch_size=4", "student.steps=4"]


def finished_teacher(folder: Path, *overrides: str) -> Run:
    bundle = write_tiny_bundle(folder / "teacher")
    return small_run(folder, "clusters.k=5", f'student.teacher="{bundle.path}"', *STUDENT, *overrides)


@pytest.mark.slow
def test_of_a_finished_teacher_names_colors_and_licence_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options_for = pipeline.learner.options_for
    few = {"steps": 3, "batch_size": 2}
    monkeypatch.setattr(pipeline.learner, "options_for", lambda *run: options_for(*run).model_copy(update=few))
    run = finished_teacher(tmp_path, "export.exemplars=0", "student.weights=regions", "export.name=small")
    made, teacher = pipeline.train(run), Bundle.load(tmp_path / "teacher")
    for mine, theirs in zip(made.manifest.clusters, teacher.manifest.clusters, strict=True):
        assert (mine.name, mine.color) == (theirs.name, theirs.color)
    assert (made.manifest.name, made.manifest.method) == ("small", "mean color")
    assert made.manifest.code.temperature == teacher.manifest.code.temperature
    notice = (made.path / "NOTICE").read_text()
    assert f"a test_resnet that learned the label maps of the bundle {teacher.ref}" in notice
    assert "    Drawn by a program; no rights reserved." in notice
    assert "no single one of them" in notice
    assert "pretrained on the images themselves; of its teacher's: none" in made.manifest.provenance.licence
    recipe = made.manifest.provenance.recipe
    assert recipe["student"]["teacher"] == "teacher"
    assert str(tmp_path) not in (made.path / "manifest.json").read_text() + notice
    assert (made.golden.image == street()).all()  # of private images: a drawn one
    assert (run.folder / "student.safetensors").exists()
    page = (run.folder / "report.html").read_text()
    assert "Student and teacher" in page
    assert made.report()["student"]["held_out_images"] == 1
    assert json.loads((run.cache / "facts" / "student.json").read_text())["teacher"] == teacher.ref
    again = pipeline.train(run)  # goes on: all of it is done
    assert again.encoder_bytes() == made.encoder_bytes()


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pipeline.train(finished_teacher(tmp_path / "whole"))
    stopped = finished_teacher(tmp_path / "stopped")
    stage_of = pipeline.learner.stage

    def dying(*given: object) -> object:
        stage = stage_of(*given)  # type: ignore[arg-type]
        left = [2]

        def after_step() -> None:
            stage.after_step()
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        return replace(stage, after_step=after_step)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.learner, "stage", dying)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(stopped)
    assert not (stopped.folder / "bundle").exists()
    made = pipeline.train(stopped)
    assert np.array_equal(made.centroids, whole.centroids)
    assert made.encoder_bytes() == whole.encoder_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "resnet10t", "mobilenetv3_small_100"])
def test_a_vits_clusters_are_taught_to_a_small_cnn(tmp_path: Path, name: str) -> None:
    """A tiny ViT under random weights is the teacher, STEGO finds its clusters; streets are drawn."""
    folder = tmp_path / "streets"
    folder.mkdir()
    paths = [folder / f"{i:02}.png" for i in range(24)]
    for i, path in enumerate(paths):
        Image.fromarray(street((96, 128), seed=i)).save(path)
    overrides = [
        "backbone.name=test_vit", "input.size=96", "clusters.k=4", "stego.steps=60", "stego.code_dim=16",
        "stego.batch_size=8", "stego.shifts=auto", f"student.backbone={name}", "student.steps=200",
        "student.batch_size=6", "student.held_out=0.2",
    ]  # fmt: skip
    run = small_run(tmp_path, *overrides, images=Images(folder, paths))
    made = pipeline.train(run)
    told = made.report()["student"]
    assert told["held_out_images"] == 5
    assert told["agreement"] > 0.75  # .82 to .85 where it was written
    assert sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file()) < 12e6
    teacher, predict = Bundle.load(run.folder / "teacher"), Exported(made.encoder_bytes())
    assert self_test(made, predict) > 0.99
    image = street((96, 128), seed=99)  # neither has seen it
    labels = segment(made, predict, image), segment(teacher, Exported(teacher.encoder_bytes()), image)
    assert labels[0].shape == (96, 128)
    assert (labels[0] == labels[1]).mean() > 0.7  # .82 to .83
    assert "its teacher" in (made.path / "NOTICE").read_text()
    before = teacher.digest
    pipeline.train(run)  # the teacher is as it was
    assert Bundle.load(run.folder / "teacher").digest == before
