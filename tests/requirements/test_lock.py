"""How lock files are made, with a double of uv."""

from pathlib import Path

import pytest

from requirements import covered, lock, pins

HASH = f"--hash=sha256:{'0' * 64}"
PROJECT = """
build-system = {requires = ["setuptools>=77"]}
dependency-groups = {tools = ["uv"]}
[project]
dependencies = ["numpy>=2"]
optional-dependencies = {cpu = ["onnxruntime"], training = ["torch"], dev = ["pytest"], heic = ["pi-heif"]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A requirements/ of its own, beside a small pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements").mkdir()
    monkeypatch.setattr(pins, "FOLDER", tmp_path / "requirements")
    return tmp_path / "requirements"


class Uv:
    """Writes a given answer where it is told to, and keeps what it was asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []
        self.text = self.before = ""

    def __call__(self, *arguments: str, text: str = "") -> None:
        self.asked.append(arguments)
        self.text = text
        if arguments[0] == "compile":
            out = Path(arguments[arguments.index("--output-file") + 1])
            self.before = out.read_text() if out.exists() else ""
            out.write_text(self.answer)


def test_a_lock_file_answers_what_pyproject_asks_for_and_keeps_what_it_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = Uv(f"numpy==2.4.6 \\\n    {HASH}\n")
    monkeypatch.setattr(lock, "uv", uv)
    lock.make("serve-cpu", upgrade=False)
    assert uv.text.split() == ["numpy>=2", "onnxruntime"]
    assert uv.before == ""
    (asked,) = uv.asked
    assert asked[asked.index("--constraints") + 1] == str(folder / "dev.txt")
    assert {"--universal", "--generate-hashes"} < set(asked)
    assert "--upgrade" not in asked
    made = (folder / "serve-cpu.txt").read_text()
    assert made == lock.HEADER + uv.answer
    lock.make("serve-cpu", upgrade=True)
    assert uv.before == made  # uv keeps the versions that it finds there
    assert "--upgrade" in uv.asked[1]
    assert (folder / "serve-cpu.txt").read_text() == made


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("build", ["pip", "setuptools>=77"]),
        ("tools", ["uv"]),
        ("dev", ["numpy>=2", "onnxruntime", "torch", "pytest"]),
        ("heic", ["pi-heif"]),
    ],
)
def test_each_file_is_made_of_its_own_requirements(name: str, requirements: list[str], folder: Path) -> None:
    assert lock.wanted(name, lock.project()) == requirements


def test_an_answer_with_an_address_or_without_hashes_replaces_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "heic.txt").write_text("what was there\n")
    for answer in ("--index-url https://example.org\n", "numpy==2.4.6\n"):
        monkeypatch.setattr(lock, "uv", Uv(answer))
        with pytest.raises(ValueError, match="is no `name==version"):
            lock.make("heic", upgrade=False)
    assert (folder / "heic.txt").read_text() == "what was there\n"


def test_every_python_on_every_platform_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    uv = Uv("")
    monkeypatch.setattr(lock, "uv", uv)
    lock.prove("dev")
    assert len(uv.asked) == len(covered.PYTHONS) * len(covered.PLATFORMS)
    assert all({"--dry-run", "--require-hashes", "--only-binary"} < set(asked) for asked in uv.asked)
    lock.prove("serve-gpu")
    assert len(uv.asked) == len(covered.PYTHONS) * (len(covered.PLATFORMS) + 1)


def test_what_uv_says_ends_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "uv.py").write_text("import sys; sys.exit('no wheels for riscv')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no wheels for riscv"):
        lock.uv("install", "--dry-run")
