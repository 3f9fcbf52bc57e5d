"""One file, whole or not at all, and never a pickle."""

import pickle
import resource
from pathlib import Path

import pytest
import torch

from models.errors import TesseraError
from training.trainer import checkpoint

FACTS = {"position": {"step": 3}, "name": "café"}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (self.path,)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": tied, "b": tied.T, "n": torch.tensor(4), "e": torch.zeros(0, 2)}
    checkpoint.save(tmp_path / "new" / "c.safetensors", tensors, FACTS)
    loaded, facts = checkpoint.load(tmp_path / "new" / "c.safetensors")
    assert facts == FACTS
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[k], tensors[k]) and loaded[k].dtype == tensors[k].dtype for k in tensors)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.zeros(2)}, FACTS)
    with pytest.raises(TypeError):
        checkpoint.save(path, {"a": torch.ones(2)}, {"not": object()})
    assert torch.equal(checkpoint.load(path)[0]["a"], torch.zeros(2))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    path, trap = tmp_path / "c.safetensors", tmp_path / "trap"
    with path.open("wb") as file:
        write({"weights": Bomb(trap)}, file)
    with pytest.raises(TesseraError, match="is a pickle"):
        checkpoint.load(path)
    assert not trap.exists()


def test_a_header_of_any_length_is_no_pickle(tmp_path: Path) -> None:
    path, starts = tmp_path / "c.safetensors", set()
    for padding in range(0, 264, 8):  # a pickle's first byte is the lowest of one in thirty-two lengths
        checkpoint.save(path, {"a": torch.zeros(1)}, {"name": "x" * padding})
        starts.add(path.read_bytes()[0])
        assert checkpoint.load(path)[1] == {"name": "x" * padding}
    assert 0x80 in starts


@pytest.mark.parametrize("keep", [0, 1, 7, 60, -1])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.zeros(20)}, FACTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TesseraError, match=r"c\.safetensors is damaged"):
        checkpoint.load(path)


def test_weights_without_facts_are_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(TesseraError, match="no facts"):
        checkpoint.load(tmp_path / "w.safetensors")
    with pytest.raises(TesseraError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_a_disk_that_ends_is_told_and_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"x": torch.zeros(10)}, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match="File too large") as told:
            checkpoint.save(path, {"x": torch.zeros(2**16)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.filename == str(path)
    assert checkpoint.load(path)[1] == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
