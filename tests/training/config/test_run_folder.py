"""A run's folder: what may begin in it, what an overwrite removes, what an earlier version left."""

import json
from pathlib import Path

import pytest

from models.errors import UsageError
from training.config import run_folder
from training.config.run_folder import begun, clear, require_free, worked

FACTS = {"data": {}, "recipe": {"backbone": {"name": "a", "family": ""}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that did something."""
    folder = tmp_path / "run"
    (folder / "cache" / "features-1").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "run.json").write_text(json.dumps(FACTS))
    (folder / "metrics.jsonl").write_text("")
    (folder / "train.log").write_text("")
    (folder / ".recipe.toml.0123abcd").write_text("cut short")
    return folder


def test_a_new_run_may_begin_where_nothing_is(tmp_path: Path) -> None:
    require_free(tmp_path / "absent", overwrite=False)
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty", overwrite=False)
    assert begun(tmp_path / "absent") is None


def test_a_run_that_did_nothing_yet_is_no_obstacle(tmp_path: Path) -> None:
    """The wrong path to the weights, and then the right one."""
    (tmp_path / "cache" / "facts").mkdir(parents=True)
    (tmp_path / "cache" / "facts" / "stages.json").write_text("[]")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "init.safetensors").write_text("")
    for name in ("run.json", "recipe.toml", "skipped.txt", "train.log", "backbone.safetensors"):
        (tmp_path / name).write_text("{}")
    require_free(tmp_path, overwrite=False)
    assert not worked(tmp_path)
    clear(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["cache"]
    require_free(tmp_path, overwrite=False)


@pytest.mark.parametrize("made", ["metrics.jsonl", "cache/features-1", "checkpoints/last.safetensors", "log.jsonl"])
def test_one_that_did_something_is_removed_only_by_its_name(tmp_path: Path, made: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("")
    with pytest.raises(UsageError, match="add --resume to go on with it, --overwrite to remove it"):
        require_free(tmp_path, overwrite=False)
    require_free(tmp_path, overwrite=True)


def test_an_overwrite_removes_what_a_run_made(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("")
    (run / "tensorboard").symlink_to(elsewhere)
    (run / "run.lock").write_text("")
    (run / "cache" / "images.sqlite3").write_text("")
    (run / "bundle-k5").mkdir()
    (run / "bundle-k5.html").write_text("")
    clear(run)
    assert sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) == [
        "cache", "cache/images.sqlite3", "run.lock",
    ]  # fmt: skip
    assert (elsewhere / "kept.txt").exists()


def test_a_folder_with_anything_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    (run / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"it holds notes\.txt, which no run made"):
            require_free(run, overwrite=overwrite)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        require_free(tmp_path / "file", overwrite=True)
    (tmp_path / "own" / "cache" / "pip").mkdir(parents=True)  # somebody's, of a name that a run would take too
    with pytest.raises(UsageError, match=r"no run\.json that says a run made it"):
        require_free(tmp_path / "own", overwrite=True)


def test_damaged_facts_are_told(run: Path) -> None:
    (run / "run.json").write_text('{"recipe"')
    with pytest.raises(UsageError, match="add --overwrite to begin anew"):
        begun(run)
    require_free(run, overwrite=True)


def test_files_of_an_earlier_version_get_the_names_of_today(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"data": {}, "recipe": {"backbone": {"name": "a"}}}))
    for name in ("log.jsonl", "checkpoint.safetensors", "consensus.safetensors"):
        (tmp_path / name).write_text(name)
    for _ in range(2):
        facts = begun(tmp_path)
        assert facts is not None
        assert facts["recipe"]["backbone"]["family"] == "dino"  # 0.3 named none: every backbone had DINO's
    for before, now in run_folder._EARLIER_NAMES.items():
        assert (tmp_path / now).read_text() == before
        assert not (tmp_path / before).exists()
