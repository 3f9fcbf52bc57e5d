"""`tessera segment` as people type it: what is written, said and returned; killed and gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from models.io import geodesy
from models.io.encode import encode
from models.lock import locked
from service.commands import segment
from service.commands.option_flags import spelled_out
from service.inference.options import Options
from service.offline.outputs import NAME, NOTES, DiskFull, Outputs
from tests.service.server import Serve, proved
from tests.tiny import bands

ROOT = Path(__file__).parents[3]
STOP_AT = """
import os, signal, sys
from itertools import count
from tessera.cli import main
at, when, number = int(sys.argv.pop(1)), sys.argv.pop(1), int(sys.argv.pop(1))
replace, numbers = os.replace, count(1)
def counting(source, target):  # by several threads: each has a number of its own, and one of them sends the signal
    mine = next(numbers) if f"{os.sep}unfinished{os.sep}" in str(source) else None
    if mine == at and when == "before":
        os.kill(os.getpid(), number)
    replace(source, target)
    if mine == at and when == "after":
        os.kill(os.getpid(), number)
os.replace = counting
main()
"""


@pytest.fixture
def here(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name, value in (("BUNDLES", tiny_bundle), ("STATE", tmp_path / "state"), ("THREADS", 1)):
        monkeypatch.setenv(f"TESSERA_{name}", str(value))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    assert before == {number: signal.getsignal(number) for number in before}


def photos(folder: Path, count: int, side: int = 40) -> list[Path]:
    paths = []
    for i in range(count):
        path = folder / f"{i % 3}" / f"photo{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(bands(side + i % 7, side + 3 * (i % 11), tuple(np.roll(range(5), i))), "png"))
        paths.append(path)
    return paths


def typed(line: str) -> Result:
    return CliRunner().invoke(segment.app, spelled_out(line.split(), Options, segment._ELSEWHERE))


def said(result: Result) -> str:
    return " ".join(result.output.split())


def lines(out: Path) -> list[dict[str, Any]]:
    """What the journal says of images."""
    return [json.loads(line) for line in (out / NOTES / NAME).read_text().splitlines()[1:]]


def equal(client: TestClient, paths: Sequence[Path], folder: Path, out: Path) -> None:
    for path in paths:
        asked = client.post("/segment", params={"format": "png"}, content=path.read_bytes())
        assert (out / path.relative_to(folder)).read_bytes() == asked.content, path


def test_a_folder_becomes_a_folder_like_it(here: Path, client: TestClient) -> None:
    paths = photos(here / "photos", 9)
    (here / "photos" / "notes.txt").touch()
    result = typed("photos --out labels --format png,json")
    assert result.exit_code == 0, result.output
    assert "9 images segmented" in said(result)
    assert "left out, by their names: 1 .txt" in said(result)
    equal(client, paths, here / "photos", here / "labels")
    assert json.loads((here / "labels/0/photo0.json").read_text())["k"] == 5
    assert sorted(path.name for path in (here / "labels").iterdir()) == [".tessera", "0", "1", "2"]
    again = typed("photos --out labels --format json,png")
    assert again.exit_code == 0
    assert "all 9 images are done already" in said(again)


def test_one_bad_file_is_named_and_skipped_and_tried_again(here: Path) -> None:
    photos(here / "photos", 3)
    bad = here / "photos" / "bad.jpg"
    bad.write_bytes(b"no image")
    first = typed("photos --out labels")
    assert first.exit_code == 1
    assert f"failed: {bad}: these bytes are not an image" in said(first)
    assert "3 images segmented" in said(first)
    bad.write_bytes(encode(bands(), "jpeg"))
    second = typed("photos --out labels")
    assert second.exit_code == 0
    assert "3 of 4 images are done already" in said(second)


def test_options_are_those_of_a_request(here: Path, client: TestClient) -> None:
    (path,) = photos(here / "photos", 1)
    result = typed("photos --out labels --k 3 --crf fast --confidence --format json")
    assert result.exit_code == 0, result.output
    query = {"k": 3, "crf": "fast", "confidence": "true"}
    asked = client.post("/segment", params=query, content=path.read_bytes()).json()
    found = json.loads(
        (here / "labels/photo0.json").read_text() if False else (here / "labels/0/photo0.json").read_text()
    )
    assert {**found, "timings_ms": 0} == {**asked, "timings_ms": 0}


def test_classes_of_a_file_stand_in_place_of_clusters(here: Path, serve: Serve, tiny_bundle: Path) -> None:
    (path,) = photos(here / "photos", 1, 60)
    with serve() as server:
        for id, x in ((3, 5), (7, 50)):
            server.put(f"/classes/{id}", json={"name": f"class {id}"})
            server.post(f"/classes/{id}/examples?x={x}&y=5", content=path.read_bytes())
        (here / "classes.json").write_bytes(server.get("/classes/export").content)
        asked = server.post("/segment?classes=true&format=png", content=path.read_bytes()).content
    result = typed("photos --out labels --classes classes.json")
    assert result.exit_code == 0, result.output
    assert (here / "labels/0/photo0.png").read_bytes() == asked
    assert typed("photos --out labels --classes classes.json").exit_code == 0
    assert typed("photos --out labels").exit_code == 2  # of clusters: another order
    (here / "bad.json").write_text("{}")
    for file, says in (("nowhere.json", "cannot be read"), ("bad.json", "--classes 'bad.json':")):
        wrong = typed(f"photos --out other --classes {file}")
        assert (wrong.exit_code, says in said(wrong)) == (2, True), wrong.output


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("photos --out labels --format pgn", "no such format: 'pgn'; did you mean 'png'"),
        ("photos --out labels --k 300", "k: should be less than or equal to 255 (got '300')"),
        ("photos --out labels --k 4 --only 9", "only: no cluster 9"),
        ("photos --out labels --crf-iterations x", "crf_iterations: is no number"),
        ("nowhere --out labels", "'nowhere' is not there; name a file, a folder"),
        (
            "photos --crf maybe --out labels",
            "'maybe' is not there, and no value of an option; --crf takes true, fast or",
        ),
        ("maybe --confidence --out labels", "--confidence takes true or false, and alone means true"),
        (
            "photos --out memory://bucket/../labels",
            "--out 'memory://bucket/../labels': name a bucket and a prefix, such as memory://bucket/labels",
        ),
        ("photos --out photos", "is, or holds, the images' folder"),
        ("photos --out .", "is, or holds, the images' folder"),
        ("photos/0/notes.txt --out labels --bundle photos", "manifest.json"),
        ("empty --out labels", "there is no image to segment; of other files there are 1 .txt"),
    ],
)
def test_wrong_usage_is_said_and_ends_with_2(here: Path, line: str, sentence: str) -> None:
    photos(here / "photos", 1)
    (here / "empty").mkdir()
    for folder in ("empty", "photos/0"):
        (here / folder / "notes.txt").touch()
    result = typed(line)
    assert sentence in said(result)
    assert result.exit_code == (1 if "manifest" in sentence else 2), result.output
    assert not list((here / "labels").rglob("*.png"))
    assert not (here / "memory:").exists()


def test_a_format_that_cannot_be_written_is_refused_before_anything_is(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(here / "photos", 2)
    monkeypatch.setattr(geodesy, "here", lambda: False)
    for line in ("--format png,geotiff", "--format zip --formats geotiff,json"):
        result = typed(f"photos --out labels {line}")
        assert result.exit_code == 2
        assert said(result).count("format geotiff needs rasterio, which is not installed") == 1
        assert not (here / "labels").exists()


def test_answers_are_no_photos(here: Path) -> None:
    photos(here / "photos", 2)
    assert "2 images segmented" in said(typed("photos --out photos/labels"))
    assert "2 images segmented" in said(typed("photos --out elsewhere --format json"))
    for number, pattern in enumerate(("photos/**/*.png", "photos/*", "photos/*/*/*.png photos/[0-9]")):
        assert "2 images segmented" in said(typed(f"{pattern} --out by-pattern/{number}"))
    assert "2 images segmented" in said(typed("photos/labels --out labels"))  # where they are asked for by name


def test_where_nothing_was_done_no_pace_is_told_and_another_order_may_begin(here: Path) -> None:
    (here / "photos").mkdir()
    bad = here / "photos" / "bad.jpg"
    bad.write_bytes(b"no image")
    for line in ("", "--k 3"):
        result = typed(f"photos --out labels {line}")
        assert result.exit_code == 1
        assert "no image was segmented; 1 failed" in said(result)
        assert "images/s" not in said(result)
    bad.write_bytes(encode(bands(), "jpeg"))
    (here / "labels/bad.json").write_text("mine")
    assert "was not written here before" in said(typed("photos --out labels --format json"))
    assert "1 images segmented" in said(typed("photos --out labels --k 4"))
    assert "k was 4, and is 3" in said(typed("photos --out labels --k 3"))


def test_options_are_judged_before_what_lies_in_the_folder(here: Path) -> None:
    photos(here / "photos", 1)
    assert typed("photos --out labels").exit_code == 0
    for line, sentence in (("--k 300", "k: should be less"), ("--k 4 --only 9", "only: no cluster 9")):
        result = typed(f"photos --out labels --format json {line}")
        assert result.exit_code == 2
        assert sentence in said(result)
        assert "another order" not in said(result)


def test_other_options_in_the_same_folder_are_refused_and_overwritten_where_asked(here: Path) -> None:
    photos(here / "photos", 2)
    assert typed("photos --out labels").exit_code == 0
    other = typed("photos --out labels --k 3")
    assert other.exit_code == 2
    assert "k was as by default, and is 3" in said(other)
    anew = typed("photos --out labels --format npy --overwrite")
    assert anew.exit_code == 0
    assert sorted(path.suffix for path in (here / "labels").rglob("photo*")) == [".npy", ".npy"]


def test_a_file_of_somebody_else_is_not_overwritten(here: Path) -> None:
    photos(here / "photos", 1)
    (here / "labels/0").mkdir(parents=True)
    (here / "labels/0/photo0.png").write_text("mine")
    result = typed("photos --out labels")
    assert result.exit_code == 2
    assert "was not written here before" in said(result)
    assert (here / "labels/0/photo0.png").read_text() == "mine"
    assert typed("photos --out labels --overwrite").exit_code == 0


def test_a_file_that_changed_is_done_anew(here: Path, client: TestClient) -> None:
    paths = photos(here / "photos", 2)
    assert typed("photos --out labels").exit_code == 0
    paths[0].write_bytes(encode(bands(30, 90), "png"))
    result = typed("photos --out labels")
    assert "1 of 2 images are done already" in said(result)
    equal(client, paths, here / "photos", here / "labels")


def test_a_dry_run_lists_and_writes_nothing(here: Path) -> None:
    photos(here / "photos", 2)
    result = typed("photos --out labels --dry-run --format png,overlay")
    assert result.exit_code == 0
    assert f"{here}/photos/0/photo0.png → 0/photo0.png, 0/photo0.overlay.jpg" in result.output
    assert not (here / "labels").exists()


def test_a_full_disk_is_told_with_the_command_that_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(here / "photos", 3)
    monkeypatch.setattr(sys, "argv", ["tessera segment", "photos", "--out", "labels"])

    def refuse(self: Outputs) -> None:
        raise DiskFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Outputs, "check_room", refuse)
        result = typed("photos --out labels")
    assert result.exit_code == 1
    assert re.search(r"error: the disk is full; to go on: \S*tessera segment photos --out labels", said(result))
    assert typed("photos --out labels").exit_code == 0


def process(here: Path, at: int, when: str, number: int = signal.SIGKILL) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, which gets a signal before, or after, an answer's file is in its place."""
    line = ["segment", "photos", "--out", "labels"]
    return subprocess.run(
        [sys.executable, "-P", "-c", STOP_AT, str(at), when, str(int(number)), *line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_killed_twice_it_does_every_file_once(here: Path, tiny_bundle: Path, client: TestClient) -> None:
    proved(tiny_bundle, here / "state")
    paths = photos(here / "photos", 60)
    assert process(here, 20, "before").returncode == -signal.SIGKILL
    first = len(lines(here / "labels"))
    assert 0 < first < 20
    interrupted = process(here, 20, "after", signal.SIGINT)
    assert interrupted.returncode == 130, interrupted.stderr
    assert "to go on: " in interrupted.stderr
    assert "segment photos --out labels" in interrupted.stderr
    second = len(lines(here / "labels"))
    assert first + 20 <= second < 60
    last = typed("photos --out labels")
    assert f"{second} of 60 images are done already" in said(last)
    assert Counter(line["source"] for line in lines(here / "labels")) == Counter(map(str, paths))
    equal(client, paths, here / "photos", here / "labels")
    assert len(list((here / "labels").rglob("*.png"))) == 60
    assert not (here / "labels" / NOTES / "unfinished").exists()


def test_two_at_once_are_one_too_many(here: Path) -> None:
    photos(here / "photos", 1)
    with locked(here / "labels" / NOTES, doing="segments"):
        result = typed("photos --out labels")
    assert result.exit_code == 2
    assert "segments there since" in said(result)


@pytest.mark.slow
def test_two_thousand_files_killed_twice_are_each_done_once(here: Path, tiny_bundle: Path, client: TestClient) -> None:
    proved(tiny_bundle, here / "state")
    paths = photos(here / "photos", 2000, side=64)
    journal = here / "labels" / NOTES / NAME
    command = [
        sys.executable,
        "-P",
        "-c",
        "from tessera.cli import main; main()",
        "segment",
        "photos",
        "--out",
        "labels",
    ]
    for share in (0.3, 0.7):
        running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=here)
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < share * 2000:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.kill()
        assert running.wait() == -signal.SIGKILL
        assert journal.read_bytes().count(b"\n") < 2000
    last = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=here, check=False)
    assert last.returncode == 0
    assert Counter(line["source"] for line in lines(here / "labels")) == Counter(map(str, paths))
    equal(client, paths, here / "photos", here / "labels")
    assert len([path for path in (here / "labels").rglob("*") if path.suffix]) == 2001
