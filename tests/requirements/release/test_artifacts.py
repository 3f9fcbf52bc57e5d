"""What of a build needs no compiler: the pure wheel's pyproject.toml, and an sdist without a time of its own."""

import io
import tarfile
import tomllib
from pathlib import Path

import pytest

from requirements.release import artifacts
from requirements.release.refusal import Refusal

ROOT = Path(__file__).parents[3]


def test_without_kernels_the_rest_is_as_it_was() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    before, after = tomllib.loads(text), tomllib.loads(artifacts.without_kernels(text))
    assert before["tool"]["setuptools"].pop("ext-modules")
    assert after == before


@pytest.mark.parametrize(
    "text", ["[project]\n", "[[tool.setuptools.ext-modules]]\na=1\n[[tool.setuptools.ext-modules]]\n"]
)
def test_another_pyproject_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="not exactly one table"):
        artifacts.without_kernels(text)


def sdist(path: Path, names: list[str], time: int, owner: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.mtime, member.uname, member.size = time, owner, len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_an_sdist_is_the_same_whenever_and_by_whomever_it_is_packed(tmp_path: Path) -> None:
    one = sdist(tmp_path / "one.tar.gz", ["t/a", "t/b"], 1_000, "alice")
    other = sdist(tmp_path / "other.tar.gz", ["t/b", "t/a"], 2_000, "bob")
    assert one.read_bytes() != other.read_bytes()
    for path in (one, other):
        artifacts._repack(path, 1_700_000_000)
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        assert [(m.name, m.mtime, m.uname, archive.extractfile(m).read()) for m in archive] == [  # type: ignore[union-attr]
            ("t/a", 1_700_000_000, "", b"t/a"),
            ("t/b", 1_700_000_000, "", b"t/b"),
        ]


@pytest.mark.parametrize("names", [[], ["a-py3-none-any.whl", "b-py3-none-any.whl"], ["a-cp311-abi3-linux_x86_64.whl"]])
def test_one_file_is_built_and_of_the_tag_that_was_meant(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(Refusal, match="was to be built"):
        artifacts._only(tmp_path, "*-py3-none-any.whl")
