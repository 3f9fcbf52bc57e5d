"""`tessera segment --engine ray`: the same files as without it; killed, interrupted and gone on with."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from models.io.encode import encode
from service.offline.outputs import NOTES
from tests.service.commands.test_segment import ROOT, lines, photos
from tests.service.offline.s3_server import s3_server
from tests.service.server import proved
from tests.tiny import bands

pytestmark = pytest.mark.slow
_LONGEST_S = 240
# In every process: a file of this name ends whoever reads it, and reading takes as long as the environment says.
SITE = """
import os, pathlib, signal, time
read = pathlib.Path.read_bytes
def read_bytes(self):
    if self.name == "killer.png":
        os.kill(os.getpid(), signal.SIGKILL)
    if self.suffix == ".png":
        time.sleep(float(os.environ.get("READING_S", 0)))
    return read(self)
pathlib.Path.read_bytes = read_bytes
"""


@pytest.fixture
def environment(tiny_bundle: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    given = {"BUNDLES": tiny_bundle, "STATE": proved(tiny_bundle, tmp_path / "state")}
    return {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
        **{f"TESSERA_{name}": str(value) for name, value in given.items()},
    }


@pytest.fixture
def begun(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command; whatever is left of it in the end is ended."""
    processes: list[subprocess.Popen[str]] = []

    def begin(line: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-c", "from tessera.cli import main; main()", "segment", *line.split()]
        process = subprocess.Popen(
            command,
            env={**environment, **more},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a command ended, and what it said; nothing on stdout."""
    out, err = process.communicate(timeout=_LONGEST_S)
    assert out == ""
    return process.returncode, err


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and NOTES not in path.parts
    }


def below(pid: int, name: str) -> list[int]:
    """The processes below one whose titles begin so."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            stat = (folder / "stat").read_text() if folder.name.isdigit() else ""
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode() if stat else ""
        except OSError:
            continue
        if stat:
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
            titles[int(folder.name)] = title
    found, level = [], [pid]
    while level:
        level = [one for one, parent in parents.items() if parent in level]
        found += [one for one in level if titles[one].startswith(name)]
    return found


def until_noted(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Waits until so many images are in the journal."""
    deadline = time.monotonic() + _LONGEST_S
    while not (out / NOTES / "journal.jsonl").exists() or len(lines(out)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_written_is_what_the_local_engine_writes(
    tmp_path: Path, begun: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "photos"
    photos(folder, 12)
    wide = (bands(50, 90).astype(np.uint16) * 257) ^ 3
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(wide))
    tifffile.imwrite(folder / "deep.tif", wide, photometric="rgb")
    tifffile.imwrite(folder / "plain.tif", bands(44, 66), photometric="rgb", compression="lzw")
    (folder / "photo.jpg").write_bytes(encode(bands(70, 80), "jpeg"))
    (folder / "broken.jpg").write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"in/{i}.png", encode(bands(40 + i, 60), "png"))
    (tmp_path / "list.txt").write_text("pack.zip\nphotos\n")
    line = "@list.txt --format png,npy,overlay --k 4 --min-area 20"
    here = ended(begun(f"{line} --out here"))
    there = ended(begun(f"{line} --out there --engine ray --workers 2"))
    assert (here[0], there[0]) == (1, 1), there
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    assert len(tree(tmp_path / "there")) == 3 * 19

    def told(err: str) -> list[str]:
        return [text for text in err.splitlines() if text.startswith("failed: ")]

    assert told(here[1]) == told(there[1])
    assert len(told(there[1])) == 1
    assert "19 images segmented in" in there[1]
    assert "workers: 2, each with 1 CPUs" in there[1]
    assert not [text for text in there[1].splitlines() if "ray" in text and "Ray" not in text], there[1]
    assert sorted(line["source"] for line in lines(tmp_path / "here")) == sorted(
        line["source"] for line in lines(tmp_path / "there")
    )
    again = ended(begun(f"{line} --out there"))  # whichever engine goes on
    assert "19 of 20 images are done already" in again[1]


def test_killed_twice_with_a_worker_and_an_image_that_kills_every_image_is_there_once(
    tmp_path: Path, begun: Callable[..., subprocess.Popen[str]]
) -> None:
    paths = photos(tmp_path / "photos", 120)
    line = "photos --out labels --engine ray --workers 2"
    counts = []
    for count in (8, 24):
        process = begun(line, READING_S="0.2")
        until_noted(process, tmp_path / "labels", count)
        process.kill()
        process.communicate()
        counts.append(len(lines(tmp_path / "labels")))
    killer = tmp_path / "photos" / "killer.png"
    killer.write_bytes(encode(bands(), "png"))
    process = begun(line, READING_S="0.2")
    until_noted(process, tmp_path / "labels", counts[-1] + 4)
    workers = below(process.pid, "ray::MapWorker")
    if workers:
        os.kill(workers[0], signal.SIGKILL)
    code, said = ended(process)
    assert code == 1, said
    assert f"{counts[-1]} of 121 images are done already" in said
    assert f"failed: {killer}: the worker process that had it alone died, 2 times" in said
    assert said.count("failed: ") == 1
    assert f"{120 - counts[-1]} images segmented" in said
    noted = [line for line in lines(tmp_path / "labels") if not line.get("failed")]
    assert Counter(line["source"] for line in noted) == Counter(map(str, paths))
    assert sorted(tree(tmp_path / "labels")) == sorted(str(path.relative_to(tmp_path / "photos")) for path in paths)
    assert not (tmp_path / "labels" / NOTES / "unfinished").exists()
    here = ended(begun("photos/0 photos/1 photos/2 --out here"))
    assert here[0] == 0
    assert tree(tmp_path / "here") == tree(tmp_path / "labels")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_leaves_nothing_running(
    tmp_path: Path, begun: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    photos(tmp_path / "photos", 60)
    process = begun("photos --out labels --engine ray --workers 1", READING_S="0.5")
    until_noted(process, tmp_path / "labels", 3)
    started = below(process.pid, "")
    process.send_signal(number)
    code, said = ended(process)
    assert code == 130, said
    assert "stopping: what is under way is dropped, and done the next time" in said
    assert "stopped; to go on: " in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_too_few_cores_are_said_and_nothing_hangs(tmp_path: Path, begun: Callable[..., subprocess.Popen[str]]) -> None:
    photos(tmp_path / "photos", 2)
    code, said = ended(begun("photos --out labels --engine ray --workers 1024"))
    assert code == 2, said
    assert "1024 workers of 1 CPU each are asked for; name fewer --workers" in said


def test_a_bucket_becomes_a_bucket(tmp_path: Path, begun: Callable[..., subprocess.Popen[str]]) -> None:
    pytest.importorskip("s3fs")
    paths = photos(tmp_path / "photos", 8)
    with s3_server() as (objects, environment):
        objects.update({f"in/photos/{path.relative_to(tmp_path / 'photos')}": path.read_bytes() for path in paths})
        line = "s3://in/photos --format png,npy"
        here = ended(begun(f"{line} --out here", **environment))
        there = ended(begun(f"{line} --out s3://out/labels --engine ray --workers 2", **environment))
        assert (here[0], there[0]) == (0, 0), (here, there)
        put = {name.removeprefix("out/labels/"): data for name, data in objects.items() if name.startswith("out/")}
        assert {name: data for name, data in put.items() if name[0] != "."} == tree(tmp_path / "here")
        assert len(tree(tmp_path / "here")) == 16
        again = ended(begun(f"{line} --out s3://out/labels", **environment))
        assert again[0] == 0, again
        assert "all 8 images are done already, in s3://out/labels" in again[1]
        del objects["out/labels/0/photo0.png"]
        once_more = ended(begun(f"{line} --out s3://out/labels", **environment))
        assert "7 of 8 images are done already" in once_more[1]
        assert objects["out/labels/0/photo0.png"] == (tmp_path / "here/0/photo0.png").read_bytes()
