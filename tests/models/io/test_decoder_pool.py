"""Decoder processes: they answer what this process would, are ended with their file, and are never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.hostile_files import bmp_runs
from models.deadline import Deadline, DeadlineExceeded
from models.io import decoder_pool
from models.io.decode import inspect
from models.io.decoder_pool import DecoderPool
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart, UnsupportedImage
from models.preprocess import InputSpec, fit
from tests.models.io.drawn import PHOTO, packed, tiff
from tests.service.fakes import wait_until

SPEC = InputSpec(size=(32, 32))
SLOW = bmp_runs(1800)  # some seconds in Pillow
HOLES = np.where(np.arange(36 * 24).reshape(24, 36) % 7, 1.5 * np.arange(36 * 24).reshape(24, 36), np.nan)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool()
    yield pool
    pool.close()


def running(pool: DecoderPool) -> list[int]:
    return [process._process.pid for process in pool._all if process.alive]


@pytest.mark.parametrize(
    ("data", "choice"),
    [
        (tiff(PHOTO), Choice()),
        (tiff(HOLES.astype(np.float32)), Choice("minmax")),
        (tiff(np.dstack([PHOTO, PHOTO[..., :2]]), photometric="rgb"), Choice(bands=(5, 1, 2))),
        (tiff(np.stack([PHOTO, PHOTO[::-1]]), photometric="rgb"), Choice(page=1)),
        (packed(Image.fromarray(PHOTO), "GIF"), Choice()),
        (packed(Image.fromarray(PHOTO), "BMP"), Choice()),
        (packed(Image.fromarray(PHOTO), "AVIF"), Choice()),
        (packed(Image.fromarray(PHOTO), "TIFF", tiffinfo={274: 6}), Choice(enough=lambda size: (size[0], 1))),
    ],
)
def test_a_process_reads_what_this_one_would(pool: DecoderPool, data: bytes, choice: Choice) -> None:
    encoded = inspect(data, choice=choice)
    want = encoded.decode()
    there = pool.inspect(data, Limits(), choice, Deadline())
    assert there[:2] == encoded[:2]
    whole = pool.read(data, Limits(), choice, encoded, Deadline(), spec=SPEC)
    alone = pool.read(data, Limits(), choice, encoded, Deadline(), spec=SPEC, photo=False)
    fitted = fit(want.image, SPEC, want.size)
    for read in (whole, alone):
        assert read.fitted is not None
        assert (read.fitted.pixels == fitted.pixels).all()
        assert (read.fitted.source, read.fitted.box) == (fitted.source, fitted.box)
        assert (read.decoded.valid is None) == (want.valid is None)
        assert want.valid is None or (read.decoded.valid == want.valid).all()
        for fact in ("size", "depth_rule", "pages", "orientation", "warnings"):
            assert getattr(read.decoded, fact) == getattr(want, fact)
    assert (whole.decoded.image == want.image).all()
    assert alone.decoded.image.size == 0
    assert (there.decode().image == want.image).all()


def test_refusals_are_those_of_this_process(pool: DecoderPool) -> None:
    data = tiff(PHOTO)
    for refused, limits, choice, kind in (
        (data, Limits(max_mpx=0.0001), Choice(), ImageTooLarge),
        (data, Limits(), Choice(page=3), NoSuchPart),
        (b"P6 ", Limits(), Choice(), UnsupportedImage),
        (data[:50], Limits(), Choice(), ImageError),
    ):
        with pytest.raises(ImageError) as here:
            inspect(refused, limits=limits, choice=choice)
        with pytest.raises(ImageError) as there:
            pool.inspect(refused, limits, choice, Deadline())
        assert type(there.value) is type(here.value) is kind
        assert str(there.value) == str(here.value)
    assert len(running(pool)) == 1  # one after the other


@pytest.mark.parametrize("by", ["its time", "who asked"])
def test_what_is_no_longer_wanted_ends_with_its_process(by: str) -> None:
    pool = DecoderPool()
    encoded = inspect(SLOW)
    pool.read(packed(Image.fromarray(PHOTO), "BMP"), Limits(), Choice(), inspect(tiff(PHOTO)), Deadline())
    (pid,) = running(pool)
    until = Deadline(time.monotonic() + 0.3) if by == "its time" else Deadline()
    if by == "who asked":
        threading.Timer(0.3, until.cancel).start()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pool.read(SLOW, Limits(), Choice(), encoded, until)
    assert time.monotonic() - began < 2
    assert not running(pool)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again = pool.inspect(tiff(PHOTO), Limits(), Choice(), Deadline())
    assert again.size == (24, 36)
    pool.close()
    wait_until(lambda: not running(pool))


def test_a_process_without_work_ends_and_another_takes_its_place() -> None:
    pool = DecoderPool(idle_s=0.05)
    for _ in range(2):
        assert pool.inspect(tiff(PHOTO), Limits(), Choice(), Deadline()).size == (24, 36)
        wait_until(lambda: not running(pool))
    pool.close()


@pytest.mark.slow
def test_what_takes_more_of_a_core_than_its_size_grants_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_LEAST_S", 0)
    monkeypatch.setattr(decoder_pool, "_BYTES_A_S", 2**40)
    pool = DecoderPool()
    with pytest.raises(ImageTooLarge, match="more than 0 s of a core: send a smaller image"):
        pool.read(SLOW, Limits(), Choice(), inspect(SLOW), Deadline())
    pool.close()


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Killed while one of them is at work."""
    code = (
        "import sys, threading, time; from models.deadline import Deadline; from models.io.decoder_pool import *\n"
        "data = open(sys.argv[1], 'rb').read(); pool = DecoderPool()\n"
        "found = pool.inspect(data, Limits(), Choice(), Deadline())\n"
        "print(*[p._process.pid for p in pool._all], flush=True)\n"
        "pool.read(data, Limits(), Choice(), found, Deadline())"
    )
    path = tmp_path / "slow.bmp"
    path.write_bytes(SLOW)
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(), 2)
