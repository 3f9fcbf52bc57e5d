"""The compiled loops on disk: in a folder that can be written, a new one when a source changes, complete once warm."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import hardware
from models.crf.cpu import jit_cache


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of an install of this test's own, with nothing compiled, a home, and temporary files."""
    here = tmp_path / "cpu"
    here.mkdir()
    for source in jit_cache.HERE.glob("*.py"):
        shutil.copy(source, here)
    monkeypatch.setattr(jit_cache, "HERE", here)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return here


def test_a_change_of_any_source_is_noticed(install: Path) -> None:
    for path in install.glob("*.py"):
        assert not jit_cache.ready()
        before = jit_cache.folder()
        jit_cache.mark_ready(jit_cache.folder())
        assert jit_cache.ready()
        assert jit_cache.folder() == before
        with path.open("a") as source:
            source.write("# changed\n")
        assert jit_cache.folder() != before
    assert not jit_cache.ready()


def test_another_processor_has_its_own(install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jit_cache.mark_ready(jit_cache.folder())
    before, told = jit_cache.folder(), tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: another\ncpu MHz\t: 1\nflags\t: fpu\n\nprocessor\t: 1\n")
    monkeypatch.setattr(hardware, "_PROCESSOR", told)
    assert jit_cache.folder() != before
    assert not jit_cache.ready()
    jit_cache.mark_ready(jit_cache.folder())
    told.write_text("processor\t: 0\nmodel name\t: another\ncpu MHz\t: 2\nflags\t: fpu\n\nprocessor\t: 1\n")
    assert jit_cache.ready()  # its pace does not matter
    monkeypatch.setattr(hardware, "_PROCESSOR", tmp_path / "none")
    assert not jit_cache.ready()


def test_the_first_place_that_can_be_written(install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parent() -> Path:
        found = jit_cache.folder()
        assert found is not None
        return found.parent

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    assert parent() == tmp_path / "given"
    (tmp_path / "file").write_text("nothing can be made below a file")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert parent() == install / "__pycache__"
    shutil.rmtree(install / "__pycache__")
    (install / "__pycache__").write_text("nor here")
    assert parent() == tmp_path / "cache" / "tessera"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    own = parent()
    assert own.parent == tmp_path / "tmp"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert jit_cache.folder() is None  # anybody may have put there what would be run
    assert not jit_cache.ready()
    jit_cache.mark_ready(jit_cache.folder())  # and nothing is said anywhere
    shutil.rmtree(own)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own.symlink_to(tmp_path / "elsewhere")
    assert jit_cache.folder() is None
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    assert jit_cache.folder() is None


def test_an_empty_folder_begins_with_what_another_place_has_complete(
    install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = install / "__pycache__", tmp_path / "volume"
    made = jit_cache.folder()
    assert made is not None
    assert made.parent == image
    (made / "models").mkdir()
    (made / "models" / "blur.nbi").write_bytes(b"index")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(volume))
    assert jit_cache.folder() == volume / made.name
    assert not list((volume / made.name).iterdir()), "half of it is no use"
    assert not jit_cache.ready()
    (made / "ready").touch()
    (volume / "crf-other").mkdir()  # what an older release left there
    (made / "models").chmod(0o555)  # as where packages cannot be written; the copy can
    assert jit_cache.ready()
    assert (volume / made.name / "models" / "blur.nbi").read_bytes() == b"index"
    assert (volume / made.name / "models").stat().st_mode & 0o200
    assert {path.name for path in volume.iterdir()} == {made.name, "crf-other"}
    (made / "models").chmod(0o755)


def test_a_process_that_is_slower_than_another_takes_what_that_one_made(
    install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jit_cache.mark_ready(jit_cache.folder())
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "volume"))
    rename = Path.rename

    def beaten(self: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").touch()
        (target / "ready").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", beaten)
    assert jit_cache.ready()
    (only,) = (tmp_path / "volume").iterdir()
    assert {path.name for path in only.iterdir()} == {"theirs", "ready"}


READ = """
from models.crf.cpu import jit_cache, mean_field
assert jit_cache.ready()
rows = mean_field.log_rows(__import__("numpy").full((2, 3, 4), 0.5, "f"), 1e-5)
stats = [one.stats for one in vars(mean_field).values() if hasattr(one, "stats") and one.overloads]
assert stats and all(one.cache_hits and not one.cache_misses for one in stats), stats
print(stats[0].cache_path)
"""


def test_numba_takes_a_copy_for_its_own(tmp_path: Path) -> None:
    assert jit_cache.ready(), "conftest.py has it compiled"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def refuse() -> str:
    """What tempfile does where there is no folder for temporary files."""
    raise FileNotFoundError("No usable temporary directory")


def test_what_nobody_uses_goes_after_weeks(install: Path) -> None:
    for days in (1, 13, 15, 40):
        old = install / "__pycache__" / f"crf-{days}"
        old.mkdir(parents=True)
        (old / "code").write_text("old")
        os.utime(old, times=(time.time() - days * 86400,) * 2)
    new = jit_cache.folder()
    assert new is not None
    assert {path.name for path in new.parent.iterdir()} == {new.name, "crf-1", "crf-13"}
    os.utime(new, times=(1, 1))
    assert jit_cache.folder() == new
    assert time.time() - new.stat().st_mtime < 60  # to be asked for is to be used


def test_two_that_begin_at_once_have_one_folder(install: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: jit_cache.folder(), range(64)))) == 1


def test_every_file_with_compiled_functions_counts() -> None:
    """All that stand beside jit_cache.py count; no other file of the CRF may have any."""
    words = re.compile(r"^\s*@(compiled|intrinsic|njit)\b", re.MULTILINE)
    found = [path for path in jit_cache.HERE.parent.rglob("*.py") if words.search(path.read_text())]
    assert len(found) == 5
    assert {path.parent for path in found} == {jit_cache.HERE}


def test_numba_keeps_them_there_and_is_otherwise_as_it_was() -> None:
    from numba import config

    from models.crf.cpu import lattice

    assert Path(lattice.blur.stats.cache_path).parent == jit_cache.folder()
    assert os.environ.get("NUMBA_CACHE_DIR", "") == config.CACHE_DIR


EVERYTHING = """
import numpy as np
from models.crf import dense
from models.crf.cpu import lattice, mean_field, simd, simplex, stencil
from models.crf.cpu.warmup import warm
from models.crf.params import CRFParams

warm()
files = lattice, mean_field, simd, simplex, stencil
functions = [one for file in files for one in vars(file).values() if hasattr(one, "overloads")]
before = {one: set(one.overloads) for one in functions}
rng = np.random.default_rng(0)
usual, other = CRFParams(iterations=1), CRFParams(iterations=2, gaussian_sxy=2, bilateral_srgb=40)
for k in (1, 2, 5, 8, 11, 16, 27, 32, 33, 60, 255):
    for height, width in ((20, 30), (9, 5)):
        given = rng.random((k, height, width), np.float32)
        given /= given.sum(axis=0)
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        for threads in (1, 2, 3, 4):
            dense.refine(given, image, usual, threads=threads)
            dense.refine(given, image, other, threads=threads, deadline=1e12, return_marginals=True)
new = {one.__name__: set(one.overloads) - before[one] for one in functions if set(one.overloads) - before[one]}
assert len(functions) > 20, functions
assert not new, new
"""


@pytest.mark.slow
def test_nothing_is_left_to_compile_once_warm() -> None:
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert jit_cache.ready()
