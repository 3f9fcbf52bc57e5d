"""The statement on a release's files, their sums, and the lines for its images."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from requirements.release import images, provenance
from requirements.release.__main__ import handed_over
from requirements.release.checkout import Checkout

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "b.whl", tmp_path / "a.tar.gz"]
    for path in made:
        path.write_text(path.name)
    return made


def test_every_file_commit_and_lock_is_told_by_its_digest(files: list[Path], tmp_path: Path) -> None:
    lock = tmp_path / "serve-cpu.txt"
    lock.write_text("numpy==2\n")
    said = provenance.statement(
        files, commit=COMMIT, epoch=7, parameters={}, materials=[lock], tools={"uv": "1", "build": "2"}, trials=[]
    )
    assert (said["_type"], said["predicateType"]) == (provenance.STATEMENT, provenance.PREDICATE)
    assert [(one["name"], one["digest"]["sha256"]) for one in said["subject"]] == [
        (name, hashlib.sha256(name.encode()).hexdigest()) for name in ("a.tar.gz", "b.whl")
    ]
    source, pinned = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": COMMIT}
    assert pinned["name"] == "requirements/serve-cpu.txt"
    assert pinned["digest"]["sha256"] == hashlib.sha256(b"numpy==2\n").hexdigest()
    provenance.write(tmp_path / "said.json", said)
    assert json.loads((tmp_path / "said.json").read_text()) == said


def test_sha256sum_can_check_what_was_handed_over_and_an_older_release_goes(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "dist"
    out.mkdir()
    for name in ("old.whl", "mine.txt"):
        (out / name).touch()
    (out / provenance.SUMS).write_text(f"{'0' * 64}  old.whl\n")
    handed_over([*files, provenance.write_sums(tmp_path, files)], out)
    assert sorted(path.name for path in out.iterdir()) == ["SHA256SUMS", "a.tar.gz", "b.whl", "mine.txt"]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", provenance.SUMS], cwd=out, check=True)
    (out / "b.whl").write_text("other")
    assert subprocess.run(["sha256sum", "--check", "--status", provenance.SUMS], cwd=out, check=False).returncode == 1


def test_images_have_a_tag_of_their_own_and_a_rehearsal_moves_none() -> None:
    assert images.tags("1.2.3", rehearsal=False) == {
        "gpu": ["tessera:1.2.3", "tessera:1.2", "tessera:latest"],
        "cpu": ["tessera:1.2.3-cpu", "tessera:1.2-cpu"],
        "training": ["tessera:1.2.3-training", "tessera:1.2-training"],
    }
    assert [len(names) for names in images.tags("1.2.3", rehearsal=True).values()] == [1, 1, 1]
    script = images.commands("1.2.3", Checkout(Path(), COMMIT, 7), rehearsal=False)
    assert script.count(f"--build-arg REVISION={COMMIT}") == 6
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
