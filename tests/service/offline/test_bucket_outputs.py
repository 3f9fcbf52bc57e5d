"""Answers that go into a bucket: the same bytes under the same names as in a folder, gone on with as there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import UsageError
from models.io.encode import encode
from service.offline import bucket_outputs
from service.offline.bucket_outputs import BucketOutputs, checked
from service.offline.journal import Journal, Order, known
from service.offline.sources import find
from tests.service.commands.test_segment import here, photos, said, typed
from tests.tiny import bands

__all__ = ["here"]
fsspec = pytest.importorskip("fsspec")
ORDER = Order("tiny@123456789abc", "123456789abcdef", ("png",), {})


@pytest.fixture
def bucket() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def below(files: Any, url: str) -> dict[str, bytes]:
    return {name.partition("/labels/")[2]: files.cat_file(name) for name in files.find(url)}


def test_a_bucket_holds_what_a_folder_would(here: Path, bucket: Any) -> None:
    paths = photos(here / "photos", 5)
    for path in paths:
        bucket.pipe_file(f"/bucket/photos/{path.relative_to(here / 'photos')}", path.read_bytes())
    assert typed("photos --out labels --format png,json").exit_code == 0
    for words in ("photos", "memory://bucket/photos"):
        out = f"memory://out/{words.partition(':')[0]}/labels"
        result = typed(f"{words} --out {out} --format png,json")
        assert result.exit_code == 0, result.output
        assert "5 images segmented in" in said(result)
        assert f"they are in {out}" in said(result)
        found = below(bucket, out)
        written = list((here / "labels").rglob("photo*"))
        assert sorted(name for name in found if not name.startswith(".")) == sorted(
            str(path.relative_to(here / "labels")) for path in written
        )
        for path in written:
            if path.suffix == ".png":
                assert found[str(path.relative_to(here / "labels"))] == path.read_bytes()
        assert [name for name in found if name.startswith(".")] == [
            ".tessera/journal/00000000.jsonl",
            ".tessera/journal/00000001.jsonl",
        ]
        again = typed(f"{words} --out {out} --format png,json")
        assert "all 5 images are done already" in said(again)
        other = typed(f"{words} --out {out} --format png,json --k 3")
        assert other.exit_code == 2
        assert "k was as by default, and is 3" in said(other)


def test_answers_below_the_images_are_no_images(here: Path, bucket: Any) -> None:
    bucket.pipe_file("/bucket/photos/a.png", encode(bands(), "png"))
    line = "memory://bucket/photos --out memory://bucket/photos/labels"
    assert "1 images segmented" in said(typed(line))
    assert "all 1 images are done already" in said(typed(line))
    anew = typed(f"{line} --format npy --overwrite")
    assert anew.exit_code == 0, anew.output
    assert sorted(name for name in below(bucket, "/bucket/photos/labels") if name[0] != ".") == ["a.npy"]


def test_an_object_of_somebody_else_is_not_overwritten(here: Path, bucket: Any) -> None:
    photos(here / "photos", 1)
    bucket.pipe_file("/out/labels/0/photo0.png", b"mine")
    result = typed("photos --out memory://out/labels")
    assert result.exit_code == 2
    assert "memory://out/labels/0/photo0.png is there, and was not written here before" in said(result)


def test_what_a_killed_process_had_not_kept_is_all_that_is_lost(
    here: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_outputs, "_KEPT_LINES", 2)
    photos(here / "photos", 5)
    outputs = BucketOutputs("memory://out/labels", ["png"])
    with find(["photos"]) as found:
        items = found.items
    journal = Journal.begin(outputs, ORDER)
    for item in items:
        journal.note(item, item.name)  # killed here: the fifth is not kept
    assert known(outputs, ["png"]) == {item.source: item.name for item in items[:4]}
    again = Journal.begin(BucketOutputs("memory://out/labels", ["png"]), ORDER)
    again.note(items[4], "e")
    again.close()
    assert known(outputs, ["png"]) == {**{item.source: item.name for item in items[:4]}, items[4].source: "e"}
    assert json.loads(bucket.cat_file("/out/labels/.tessera/journal/00000000.jsonl"))["model"] == ORDER.model


def test_another_run_is_seen_to_have_begun(bucket: Any) -> None:
    first, second = (BucketOutputs("memory://out/labels", ["png"]) for _ in range(2))
    first.begin()
    assert (first.begun, second.begun) == (True, False)
    second.begin()
    assert (first.begun, second.begun) == (False, True)
    second.end()
    assert not second.begun


@pytest.mark.parametrize("url", ["s3://", "s3://bucket/*", "s3://bucket/a/../b", "s3://bucket//b", "s3:///b"])
def test_where_nothing_can_go_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="name a bucket and a prefix, such as s3://bucket/labels"):
        checked(url)
    assert checked("s3://bucket/labels/") == "s3://bucket/labels"
