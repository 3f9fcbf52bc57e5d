"""A bundle's folder: what is no plain file is never opened, and none is read beyond its size."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import bundle, bundle_files
from models.bundle import Bundle, BundleError
from tests.models.stripes import CENTROIDS, parts


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "stripes", **parts(positions=CENTROIDS[:, :1])).path


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "golden.npz", "report.json", "exemplars/000_0.webp"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_refused_at_once(saved: Path, name: str, make: Callable[[Path], Any]) -> None:
    (saved / name).unlink()
    make(saved / name)
    began = time.monotonic()
    with pytest.raises(BundleError, match=r"plain file|symlink|is a folder"):
        Bundle.load(saved)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("name", "most"), [*bundle_files.MAX_BYTES.items(), ("exemplars/000_0.webp", bundle_files.MAX_EXEMPLAR_BYTES)]
)
def test_a_file_beyond_its_size_is_refused_unread(saved: Path, name: str, most: int) -> None:
    os.truncate(saved / name, most + 1)  # nothing of it lies on the disk
    with pytest.raises(BundleError, match=rf"larger than the {most / 2**20:.0f} MiB"):
        Bundle.load(saved)


def test_a_file_that_grows_while_it_is_read_is_read_no_further(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "NOTICE").write_bytes(b"x" * 11)
    small = os.stat_result((0o100644, 0, 0, 0, 0, 0, 10, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda fd: small)
    for read in (bundle_files.read, bundle_files.sha256):
        with pytest.raises(BundleError, match="NOTICE grows"):
            read(saved, "NOTICE")


def test_the_first_file_that_is_not_listed_ends_the_search(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"encoder.onnx", "centroids.npy", "positions.npy", "golden.npz", "report.json", "NOTICE"}
    for i in range(200):
        (saved / "exemplars" / f"{i}.txt").touch()
    looked: list[Any] = []
    entries = bundle_files._entries
    monkeypatch.setattr(bundle_files, "_entries", lambda folder: (looked.append(e) or e for e in entries(folder)))
    with pytest.raises(BundleError, match="not listed"):
        bundle_files.check_listing(saved, listed)
    assert len(looked) <= len(listed) + 1


@pytest.mark.parametrize("name", ["pipe", "more", "exemplars/deeper"])
def test_pipes_and_folders_that_are_not_listed_are_refused(saved: Path, name: str) -> None:
    (os.mkfifo if name == "pipe" else Path.mkdir)(saved / name)
    with pytest.raises(BundleError, match=f"{name} is no plain file"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    ("name", "says"), [("\udcff", r"\\udcff is not"), ("a\nb", r"a\\nb is not"), ("x" * 250, "x{100} is")]
)
def test_every_name_can_be_told(saved: Path, name: str, says: str) -> None:
    (saved / name).touch()
    with pytest.raises(BundleError, match=says) as error:
        Bundle.load(saved)
    str(error.value).encode()


@pytest.mark.parametrize("name", ["exemplars/٠٠٠_0.webp", "exemplars/000_0.webp\n", "exemplars/000_000.webp"])
def test_an_exemplar_is_named_by_plain_digits(name: str) -> None:
    assert bundle_files.exemplar_of(name) is None
    assert bundle_files.exemplar_of("exemplars/012_7.webp") == 12


def test_the_digest_is_judged_before_anything_else(saved: Path) -> None:
    (saved / "encoder.onnx").unlink()
    asked = []

    def refuse(digest: str) -> None:
        asked.append(digest)
        raise BundleError("not this one")

    with pytest.raises(BundleError, match="not this one"):
        Bundle.load(saved, refuse)
    assert len(asked[0]) == 64
