"""`make release` of a clone of this repository, from its environment of tools to its sums."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_MAKE_S = 1500  # on an idle machine four minutes, of which the tools take one


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", f"PYTHON={sys.executable}", "release", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=_MAKE_S
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None or shutil.which("gcc") is None, reason="needs make and a C compiler")
def test_a_release_is_complete_and_one_that_is_not_ready_is_refused(clone: Path) -> None:
    done = make(clone, "REHEARSAL=1")
    assert done.returncode == 0, done.stdout + done.stderr
    dist = clone / "dist"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=dist, check=True)
    said = json.loads((dist / "provenance.intoto.json").read_text())
    subjects = {one["name"] for one in said["subject"]}
    assert subjects == {path.name for path in dist.iterdir()} - {"provenance.intoto.json", "SHA256SUMS"}
    trials = said["predicate"]["runDetails"]["metadata"]["tessera_trials"]
    assert {one["how"] for one in trials} == {"run", "resolved"}
    assert {one["python"] for one in trials} == {"3.11", "3.12", "3.13", "3.14"}
    (pure,) = dist.glob("*-py3-none-any.whl")
    (compiled,) = dist.glob("*-cp311-abi3-*.whl")
    names = [{name for name in zipfile.ZipFile(wheel).namelist() if name[-1] != "/"} for wheel in (compiled, pure)]
    assert names[0] - names[1] == {"models/native/_kernels.abi3.so"}
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("models/native/kernels.c") for name in archive.getnames())

    (clone / "new.py").touch()
    refused = make(clone, "REHEARSAL=1")
    assert refused.returncode != 0
    assert "NOT RELEASED: no commit has what is here: new.py" in refused.stderr
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dist, check=True)  # of the one before
