"""Rows on disk without a mapping, and a list of what is done that survives its process."""

import errno

import numpy as np
import pytest

from models.errors import TesseraError
from training import distributed
from training.features.row_file import Ledger, RowFile, divided


def test_reads_and_writes_what_numpy_reads(tmp_path):
    file = RowFile.create(tmp_path / "rows.npy", (6, 2, 3), "float16")
    wanted = np.arange(36).reshape(6, 2, 3).astype(np.float16)
    file[0:4] = wanted[:4]
    file[4:6] = wanted[4:].astype(np.float32)  # in the file's own type
    assert np.array_equal(np.load(tmp_path / "rows.npy"), wanted)
    again = RowFile(tmp_path / "rows.npy")
    assert (again.shape, again.dtype, len(again)) == ((6, 2, 3), np.float16, 6)
    assert np.array_equal(again, wanted)
    assert np.array_equal(again[2], wanted[2])
    assert np.array_equal(again[[5, 0, 5]], wanted[[5, 0, 5]])
    assert np.array_equal(again[1:3], wanted[1:3])
    assert again[[]].shape == (0, 2, 3)


def test_a_damaged_file_says_what_to_do(tmp_path):
    path = tmp_path / "rows.npy"
    file = RowFile.create(path, (4, 8), "float32")
    with path.open("r+b") as opened:
        opened.truncate(path.stat().st_size - 8)
    with pytest.raises(TesseraError, match="delete it"):
        file[3]
    for damage in (b"", b"no array", path.read_bytes()[:50]):
        path.write_bytes(damage)
        with pytest.raises(TesseraError, match="delete it"):
            RowFile(path)


def test_a_full_disk_is_said_in_words(tmp_path, monkeypatch):
    file = RowFile.create(tmp_path / "rows.npy", (2, 2), "uint8")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(TesseraError, match="No space left on device"):
        file[0:1] = np.zeros((1, 2))


def test_what_was_done_before_an_error_is_done(tmp_path):
    rows = RowFile.create(tmp_path / "rows.npy", (5, 1), "int64")

    def work() -> None:
        with Ledger(tmp_path / "done.npy", 5).kept(rows) as ledger:
            for block in (3, 1):
                rows[block : block + 1] = np.full((1, 1), block)
                ledger.add(block)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert Ledger(tmp_path / "done.npy", 5).todo().tolist() == [0, 2, 4]
    assert Ledger(tmp_path / "done.npy", 6).todo().tolist() == [0, 1, 2, 3, 4, 5]  # of another work


def test_processes_share_the_blocks_that_are_left_whatever_their_number(tmp_path, monkeypatch):
    done, taken = tmp_path / "done.npy", list[int]()
    with Ledger(done, 9).kept() as ledger:
        for block in (0, 4):
            ledger.add(block)
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with divided(done, 9) as (_, mine):
            taken += mine
    assert sorted(taken) == [1, 2, 3, 5, 6, 7, 8]
