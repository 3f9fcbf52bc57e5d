"""What is released is a commit, and all that is there."""

import subprocess
from pathlib import Path

import pytest

from requirements.release.checkout import checkout
from requirements.release.refusal import Refusal


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "a.py").write_text("a\n")
    (root / ".gitignore").write_text("dist/\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run([*git, *command], check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    return root


def test_a_commit_and_its_files_alone(repository: Path, tmp_path: Path) -> None:
    (repository / "dist").mkdir()
    (repository / "dist" / "old.whl").touch()
    found = checkout(repository)
    assert len(found.commit) == 40
    assert found.epoch > 1_700_000_000
    exported = found.export(tmp_path / "out")
    assert sorted(path.name for path in exported.iterdir()) == [".gitignore", "a.py"]


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_what_no_commit_has_is_refused(name: str, repository: Path) -> None:
    (repository / name).write_text("changed\n")
    with pytest.raises(Refusal, match=f"no commit has what is here: {name}") as refusal:
        checkout(repository)
    assert refusal.value.code == 2


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="rev-parse"):
        checkout(tmp_path)
