"""What a run will take is what it takes; and what cannot end does not begin."""

from pathlib import Path

import pytest
import torch

from models.errors import TesseraError, UsageError
from tests.tiny import write_tiny_bundle
from tests.training.few_steps import few_steps, smallest_backbone
from tests.training.small_run import make, small_run
from training import methods
from training.planning import planner
from training.pretraining import weights
from training.trainer import checkpoint


def small(name: str, folder: Path) -> list[str]:
    return [*smallest_backbone(name, folder / "try"), *few_steps(name)]


@pytest.mark.parametrize("name", methods.names())
def test_steps_and_disk_are_what_the_method_then_takes(name: str, tmp_path: Path) -> None:
    run = small_run(tmp_path, *small(name, tmp_path))
    random = torch.get_rng_state()
    found = planner.make(run, seconds=0.0)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(run.folder.iterdir()) == []
    steps = {part.name: part.count for part in found.parts if part.unit == "steps"}
    assert all(part.seconds > 0 for part in found.parts if part.unit != "files")
    method = make(run)
    assert steps == {stage.name: stage.steps for stage in method.stages()}
    kept = sum(file.stat().st_size for file in run.cache.rglob("*") if file.is_file())
    planned = sum(part.disk_bytes for part in found.parts if part.name in ("features", "regions", "masks"))
    assert planned == pytest.approx(kept, rel=0.02, abs=2000)  # heads of files
    assert {"measuring", "tree", "export", "checkpoints"} <= {part.name for part in found.parts}
    assert found.images == 8
    assert all(f"{count} steps" in "\n".join(found.lines()) for count in steps.values())


def test_where_no_hub_answers_the_pretraining_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights, "hub_has", lambda name: bool(asked.append(name)))
    small_one = weights.PretrainOptions(backbone="test_resnet", steps=7, batch_size=2)
    monkeypatch.setattr(weights, "options_for", lambda recipe, images: small_one)
    run = small_run(tmp_path, "backbone.weights=auto", "stego.steps=2", "stego.code_dim=8")
    parts = {part.name: part for part in planner.make(run, seconds=0.0).parts}
    assert (parts["regions"].count, parts["pretraining"].count, parts["distill"].count) == (8, 7, 2)
    assert parts["regions"].disk_bytes == 8 * 240 * 320 * (3 + 2 * 3)
    weights.first(run)
    assert asked == ["vit_small_patch8_224.dino"]  # once for a run


def test_clusterings_and_what_is_distilled_from_them(tmp_path: Path) -> None:
    overrides = small("stego", tmp_path)
    names = [
        part.name for part in planner.make(small_run(tmp_path, *overrides, "stego.centroids=kmeans"), seconds=0.0).parts
    ]
    assert "codes" in names
    lesson = ["clusters.unit=region", "clusters.distill_steps=9"]
    parts = {
        part.name: part.count for part in planner.make(small_run(tmp_path, *overrides, *lesson), seconds=0.0).parts
    }
    assert (parts["codes of regions"], parts["consensus"]) == (8, 9)
    assert "joining" not in parts


def test_pieces_that_are_joined_take_their_time(tmp_path: Path) -> None:
    overrides = [*small("stego", tmp_path), "clusters.merge=true", "clusters.k=4"]
    parts = {part.name: part for part in planner.make(small_run(tmp_path, *overrides), seconds=0.0).parts}
    names = list(parts)
    assert names.index("codes of regions") + 1 == names.index("joining")
    assert parts["joining"].count == 8 * 150
    assert parts["joining"].unit == "regions"
    assert parts["joining"].seconds > 0


def test_a_student_comes_after_its_own_teacher(tmp_path: Path) -> None:
    lesson = ["student.backbone=test_resnet", "student.steps=9", "student.held_out=0.25"]
    own = planner.make(small_run(tmp_path, *small("stego", tmp_path), *lesson), seconds=0.0)
    names = [part.name for part in own.parts]
    assert names.index("distill") < names.index("lessons") < names.index("student") < names.index("comparing")
    assert (names.count("measuring"), names.count("export")) == (2, 2)
    parts = {part.name: part for part in own.parts}
    assert (parts["lessons"].count, parts["student"].count, parts["comparing"].count) == (6, 9, 2)
    assert parts["lessons"].disk_bytes == 6 * (64 * 80 * 3 + 2 * 3 * 16 * 20)


def test_of_a_finished_teacher_nothing_is_trained(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "teacher")
    overrides = ["clusters.k=5", "student.backbone=test_resnet", f'student.teacher="{bundle.path}"', "student.steps=9"]
    names = [part.name for part in planner.make(small_run(tmp_path, *overrides), seconds=0.0).parts]
    assert names == [
        "lessons", "student", "comparing", "comparing", "measuring", "tree", "export", "checkpoints",
    ]  # fmt: skip
    found = planner.make(small_run(tmp_path, *overrides, "student.weights=regions"), seconds=0.0)
    assert [part.name for part in found.parts][1:3] == ["regions", "pretraining"]
    assert found.parts[1].count == 7  # of eight images one is held out


def test_a_network_that_cannot_be_built_is_told_now(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match="PiCIE needs a CNN"):
        planner.make(small_run(tmp_path, "method=picie", "backbone.name=test_vit"), seconds=0.0)


def test_weights_that_do_not_fit_are_refused_before_anything_begins(tmp_path: Path) -> None:
    overrides = small("san", tmp_path)
    run = small_run(tmp_path, *overrides)
    method = make(run)
    tensors = {f"module/{name}": value for name, value in method.state_dict().items()}
    checkpoint.save(tmp_path / "a.safetensors", tensors, {})
    planner.make(run, init=tmp_path / "a.safetensors", seconds=0.0)
    with pytest.raises(UsageError, match=r"its network is not this run's: .* there and "):
        planner.make(small_run(tmp_path, *overrides, "clusters.k=5"), init=tmp_path / "a.safetensors", seconds=0.0)
