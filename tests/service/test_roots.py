"""Paths below the roots, and all the ways that lead out of them."""

import os
from pathlib import Path

import pytest

from service.errors import BadOption, NotAllowed, NotFound
from service.roots import Roots


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two roots, `open` and `maps`, and beside them `secret` and `openly`."""
    for folder in ("open/a/b c", "maps", "secret", "openly"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "open" / "file.png").write_bytes(b"x")
    (tmp_path / "open" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "open" / "in").symlink_to(tmp_path / "open" / "a")
    (tmp_path / "open" / "loop").symlink_to(tmp_path / "open" / "loop")
    return tmp_path


@pytest.fixture
def roots(home: Path) -> Roots:
    return Roots([home / "open", home / "maps"])


def test_what_is_below_a_root_is_found(roots: Roots, home: Path) -> None:
    inside = home / "open" / "a" / "b c"
    for text in (str(inside), "a/b c", inside.as_uri(), f"file://localhost{inside.as_uri()[7:]}", "a/../a/b c"):
        assert roots.folder(text) == (inside.resolve(), (home / "open").resolve())
    assert roots.folder(str(home / "maps")).path == (home / "maps").resolve()
    assert roots.folder("in").path == (home / "open" / "a").resolve()
    assert roots.resolve("file.png").path.name == "file.png"


@pytest.mark.parametrize(
    "text",
    ["../secret", "/", "/etc", "a/../../secret", "out", "out/x", "nothing", "loop", "~", "../openly", "%2e%2e/secret"],
)
def test_what_is_not_or_leads_out_is_the_same(roots: Roots, home: Path, text: str) -> None:
    with pytest.raises(NotFound, match="TESSERA_ROOTS"):
        roots.folder(text)
    with pytest.raises(NotFound, match="TESSERA_ROOTS"):
        roots.folder(str(home / "openly"))
    with pytest.raises(NotFound, match="TESSERA_ROOTS"):
        roots.folder(f"{(home / 'open').as_uri()}/%2e%2e/secret")


@pytest.mark.parametrize(
    "text", ["", "a\0b", "x" * 5000, "file://host/x", "file:x", "file:///x?y", "file:///a%00b", "file.png"]
)
def test_what_is_no_folder_is_said(roots: Roots, text: str) -> None:
    with pytest.raises(BadOption, match="path"):
        roots.folder(text)


def test_odd_bytes_are_no_way_out(roots: Roots) -> None:
    for text in ("file:///%ff", "\udcff", os.fsdecode(b"\xff/.."), "a" * 300):
        with pytest.raises(NotFound):
            roots.folder(text)


def test_without_roots_nothing_is_read() -> None:
    with pytest.raises(NotAllowed, match="TESSERA_ROOTS"):
        Roots([]).folder("/")


def test_buckets_are_below_theirs() -> None:
    roots = Roots([], ["s3://photos/2026/", "gs://maps"])
    for url in ("s3://photos/2026", "s3://photos/2026/", "s3://photos/2026/a b/ü", "gs://maps/x"):
        assert roots.bucket(url) == url.rstrip("/")
    for url in (
        "s3://photos", "s3://photos/20260", "s3://photos/2026/../2025", "s3://other", "gs://maps2/x", "http://maps/x",
        "gs://maps/*", "gs://maps/a?b", "simplecache::gs://maps/x", "gs://maps/x::file:///etc", "gs://u@maps/x", "gs://",
        "memory://maps", "S3://photos/2026", "s3://photos/2026/\n", "gs://maps/" + "x" * 5000,
    ):  # fmt: skip
        with pytest.raises(NotFound, match="TESSERA_BUCKETS"):
            roots.bucket(url)
    with pytest.raises(NotFound):
        Roots([]).bucket("s3://photos")
