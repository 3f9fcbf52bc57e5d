"""`tessera push` and `pull` through huggingface_hub itself, against a stand-in of the Hub on loopback."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import _commit_api, constants

from models.bundle import Bundle
from tessera.commands import hub as command
from tests.tessera.commands.hub_server import Hub, Repository, hub

Run = Callable[..., int]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how they call httpx


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(
        _commit_api, "is_xet_available", lambda: False
    )  # its storage is no HTTP that could be stood in for
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    with hub() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(name: str, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [f"tessera {name}", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            getattr(command, name)()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


@pytest.fixture
def files(tiny_bundle: Path) -> dict[str, bytes]:
    return {
        path.relative_to(tiny_bundle).as_posix(): path.read_bytes() for path in tiny_bundle.rglob("*") if path.is_file()
    }


def test_a_bundle_goes_there_and_comes_back(
    there: Hub, run: Run, tiny_bundle: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert run("push", tiny_bundle, "somebody/tiny", "--private") == 0
    pushed = there.repositories["somebody/tiny"]
    assert pushed.private
    card = pushed.branches["main"].pop("README.md").decode()
    assert pushed.branches["main"] == files
    assert card.startswith('---\nlibrary_name: "tessera"\n')
    assert all(word in card for word in (bundle.digest, "![0](exemplars/000_0.webp)", "drawn by a program", "green"))
    assert "/somebody/tiny/commit/" in capsys.readouterr().out
    assert run("pull", "somebody/tiny", "--digest", bundle.digest[:12]) == 0
    assert Bundle.load("bundles/tiny").digest == bundle.digest
    assert capsys.readouterr().out == f"{bundle.digest}  tiny\n"
    assert not list(Path("bundles").glob(".*"))
    assert run("pull", "somebody/tiny") == 0  # again: the same


def test_pushing_again_leaves_no_old_patch(there: Hub, run: Run, tiny_bundle: Path) -> None:
    there.repositories["somebody/tiny"] = Repository(
        branches={"main": {"exemplars/200_0.webp": b"x", "note.txt": b"x"}}
    )
    assert run("push", tiny_bundle, "somebody/tiny", "--message", "new") == 0
    now = there.repositories["somebody/tiny"].branches["main"]
    assert "exemplars/200_0.webp" not in now
    assert "note.txt" in now
    assert run("pull", "somebody/tiny") == 0
    assert not Path("bundles/tiny/note.txt").exists()


@pytest.mark.slow
def test_a_broken_pull_goes_on_where_it_ended(
    there: Hub, run: Run, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.repositories["somebody/tiny"] = Repository(branches={"main": files, "old": {}})
    there.broken = {"golden.npz"}
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", len(files["golden.npz"]) // 2)
    code = run("pull", "somebody/tiny", "--revision", "main")
    if code:  # huggingface_hub itself may go on, too
        assert not Path("bundles/tiny").exists()
        assert run("pull", "somebody/tiny") == 0
    assert there.ranges == [f"golden.npz {len(files['golden.npz']) // 2}"]
    Bundle.load("bundles/tiny")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("NOTICE"), "NOTICE is not there"),
        (lambda files: files.update({"exemplars/000_0.webp": bytes(2**20 + 1)}), "1048576 are the most"),
        (lambda files: files.update({"encoder.onnx": b"other"}), "sha256 is not the manifest's"),
        (lambda files: files.update({"manifest.json": b"{}"}), "manifest.json"),
    ],
    ids=["missing", "too large", "altered", "no manifest"],
)
def test_what_is_no_sound_bundle_is_not_kept(
    there: Hub,
    run: Run,
    files: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, bytes]], object],
    words: str,
) -> None:
    change(files)
    there.repositories["somebody/tiny"] = Repository(branches={"main": files})
    assert run("pull", "somebody/tiny") == 1
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not Path("bundles/tiny").exists()


def test_another_digest_costs_the_manifest_alone(
    there: Hub, run: Run, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    there.repositories["somebody/tiny"] = Repository(branches={"main": files})
    assert run("pull", "somebody/tiny", "--digest", "0" * 12) == 1
    assert "and not 000000000000" in capsys.readouterr().err
    assert not any("encoder.onnx" in line for line in there.asked)
    assert run("pull", "somebody/tiny", "--digest", "xyz") == 2


@pytest.mark.slow
def test_another_bundle_is_not_replaced_unasked(
    there: Hub, run: Run, files: dict[str, bytes], make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    there.repositories["somebody/tiny"] = Repository(branches={"main": files})
    other = make_bundle("other")
    assert run("pull", "somebody/tiny", "--out", other) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert Bundle.load(other).manifest.name == "other"
    assert run("pull", "somebody/tiny", "--out", other, "--overwrite") == 0
    assert Bundle.load(other).manifest.name == "tiny"
    shutil.rmtree(other)
    other.mkdir()
    (other / "mine.txt").touch()
    assert run("pull", "somebody/tiny", "--out", other) == 2


@pytest.mark.slow
def test_the_trust_list_is_told(
    there: Hub, run: Run, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    there.repositories["somebody/tiny"] = Repository(branches={"main": files})
    listed = tmp_path / "trusted"
    listed.write_text("# nothing yet\n")
    monkeypatch.setenv("TESSERA_TRUST", str(listed))
    assert run("pull", "somebody/tiny") == 0
    told = capsys.readouterr()
    assert "until the line below stands there" in told.err.replace("\n", " ")
    listed.write_text(told.out)
    assert run("pull", "somebody/tiny") == 0
    assert "servers take it" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody/nothing",), 1, "not there, or private"),
        (("somebody/secret", "--token", "hf_wrong"), 1, "not there, or private"),
        (("somebody/tiny", "--revision", "v9"), 1, "no such revision"),
        (("a/b/c",), 2, "a/b/c"),
    ],
)
def test_what_is_not_there_is_said(
    there: Hub, run: Run, files: dict[str, bytes], capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], code: int, words: str,
) -> None:  # fmt: skip
    there.repositories["somebody/tiny"] = Repository(branches={"main": files})
    there.repositories["somebody/secret"] = Repository(private=True, branches={"main": files})
    assert run("pull", *arguments) == code
    assert words in capsys.readouterr().err.replace("\n", " ")
