"""What an archive lacks or has too much of is named; what no pattern of pyproject.toml takes is not left in silence."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from requirements import lock
from requirements.release import contents
from requirements.release.refusal import Refusal

ROOT = Path(__file__).parents[3]
MODULES = {"models/a.py", "service/web/page.js"}
INFO = {f"tessera_segmentation-1.0.dist-info/{name}" for name in contents._INFO}


def wheel(folder: Path, names: set[str]) -> Path:
    path = folder / "tessera.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_a_complete_wheel_passes(tmp_path: Path) -> None:
    contents.check_wheel(wheel(tmp_path, MODULES | INFO), MODULES, "1.0", kernels=False)
    contents.check_wheel(wheel(tmp_path, MODULES | INFO | {contents.KERNELS}), MODULES, "1.0", kernels=True)


@pytest.mark.parametrize(
    ("names", "kernels", "said"),
    [
        ({"models/a.py"} | INFO, False, "lacks service/web/page.js"),
        (MODULES | INFO | {"models/native/guided.c"}, False, r"has models/native/guided\.c"),
        (MODULES | INFO, True, "lacks models/native/_kernels"),
        (MODULES | INFO | {contents.KERNELS}, False, "has models/native/_kernels"),
    ],
)
def test_a_difference_is_named(names: set[str], kernels: bool, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=said):
        contents.check_wheel(wheel(tmp_path, names), MODULES, "1.0", kernels)


def test_an_sdist_has_the_sources_of_the_kernels(tmp_path: Path) -> None:
    path = tmp_path / "tessera.tar.gz"
    egg_info = {f"tessera_segmentation.egg-info/{name}" for name in contents._EGG_INFO}
    names = MODULES | egg_info | {*contents._BESIDE, "models/native/guided.c"}
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"tessera_segmentation-1.0/{name}"), io.BytesIO())
    contents.check_sdist(path, MODULES, "1.0", {"models/native/guided.c"})
    with pytest.raises(Refusal, match=r"lacks .*kernels\.h"):
        contents.check_sdist(path, MODULES, "1.0", {"models/native/guided.c", "models/native/kernels.h"})


def test_a_file_that_no_pattern_takes_is_refused(tmp_path: Path) -> None:
    for name in ("models/a.py", "service/web/page.js", "training/recipes/a.toml", "training/recipes/list.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(Refusal, match=r"no pattern for training/recipes/list\.csv"):
        contents.installed(tmp_path, lock.project())
    (tmp_path / "training/recipes/list.csv").unlink()
    assert contents.installed(tmp_path, lock.project()) == MODULES | {"training/recipes/a.toml"}


def test_our_kernels_are_those_of_the_folder() -> None:
    named = contents.kernel_sources(lock.project())
    assert named == {f"models/native/{path.name}" for path in (ROOT / "models" / "native").glob("*.[ch]")}
