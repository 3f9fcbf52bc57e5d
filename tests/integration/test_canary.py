"""A canary in a server's process, on onnxruntime: it says of both what asking both says, and no request fails while it
comes, is compared, and takes the default's place."""

import io
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from benchmarks import machine
from models.bundle import Bundle
from tests.service.fakes import wait_until
from tests.service.process import process
from tests.service.server import proved
from tests.service.variants import coarser

pytestmark = pytest.mark.slow


def ask(port: int, path: str, body: bytes | None = None, method: str | None = None) -> tuple[bytes, str]:
    """The answer's body, and the model that answered. Raises for what is not 200."""
    request = urllib.request.Request(f"http://localhost:{port}{path}", body, {"X-API-Key": "admin"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers.get("x-model", "")


def photos(count: int) -> Iterator[bytes]:
    """Noise at many scales, as PNG."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(200, 700, 2))
        cell = int(rng.integers(4, 60))
        small = rng.integers(0, 256, (height // cell + 2, width // cell + 2, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((width, height)).save(file, "PNG", compress_level=1)
        yield file.getvalue()


def ids(port: int, image: bytes, model: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(ask(port, f"/segment?format=png&palette=false&model={model}", image)[0])))


def begun(port: int) -> dict[str, str]:
    """A canary that takes 40 percent; which workers did not follow."""
    try:
        return dict(json.loads(ask(port, "/models/coarse/canary", b'{"share": 40}')[0])["elsewhere"])
    except OSError as error:
        return {"asked": str(error)}


def report(port: int) -> dict[str, Any]:
    return dict(json.loads(ask(port, "/models/canary")[0]))


def settled(port: int) -> None:
    """Until every worker has compared what it was given."""
    quiet = 0
    while quiet < 8:  # each look is answered by one of them
        time.sleep(0.02)
        quiet = 0 if report(port)["waiting"] else quiet + 1


def killed_in_turn(parent: int, port: int, wanted: dict[str, Any]) -> None:
    """Each worker dies and is started again; whoever is asked meanwhile says what all had counted."""
    time.sleep(3)  # what is older than that is kept
    for victim in machine.children(parent):
        os.kill(victim, signal.SIGKILL)
        together, until = 0, time.monotonic() + 60
        while together < 16:  # each look is answered by one of them
            assert time.monotonic() < until
            time.sleep(0.05)
            try:
                found = report(port)
            except OSError:  # it was asked of the one that died
                continue
            for name in ("table", "answered", "compared", "skipped", "since", "margin", "latency", "servers"):
                assert found[name] == wanted[name], name
            whole = not found["elsewhere"] and victim not in machine.children(parent)
            together = together + 1 if whole else 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_share_is_compared_and_promoted_without_a_failed_request(
    tiny_bundle: Path, tmp_path: Path, workers: int
) -> None:
    shelf, state = tmp_path / "models", tmp_path / "state"
    canary = coarser(Bundle.load(tiny_bundle), shelf / "coarse", keep=[2, 0, 3])
    proved(canary.path, state)
    images = list(photos(40))
    more = {"TESSERA_MODELS": str(shelf), "TESSERA_ADMIN_KEY": "admin", "TESSERA_ACCESS_LOG": "false"}
    with process(tiny_bundle, state, *(["--workers", "2"] if workers > 1 else []), **more) as (running, port):
        wait_until(lambda: begun(port) == {}, 60)  # a second worker may still load
        answered: list[tuple[int, str]] = []
        failed: list[str] = []
        done = threading.Event()

        def keep_asking(first: int) -> None:
            n = first
            while not done.is_set():
                n = (n + 1) % len(images)
                try:
                    answered.append((n, ask(port, "/segment?format=npy", images[n])[1]))
                except OSError as error:
                    failed.append(f"{n}: {error}")

        asking = [threading.Thread(target=keep_asking, args=(k * 10,)) for k in range(4)]
        for thread in asking:
            thread.start()
        wait_until(lambda: {n for n, _ in answered} == set(range(len(images))), 120)
        done.set()
        for thread in asking:
            thread.join()
        assert not failed
        models = {n: {model for m, model in answered if m == n} for n in range(len(images))}
        assert all(len(one) == 1 for one in models.values())  # whichever worker was asked
        mine = [n for n, one in models.items() if one == {canary.ref}]
        assert 5 <= len(mine) <= 28
        for n in mine:  # asked again while nobody else asks, each is counted that was skipped
            settled(port)
            ask(port, "/segment?format=npy", images[n])
        settled(port)
        found = report(port)
        assert (found["servers"], found["elsewhere"], found["failures"]) == (workers, {}, 0)
        each = np.zeros((len(mine), 5, 3), np.int64)
        for table, n in zip(each, mine, strict=True):
            np.add.at(table, (ids(port, images[n], found["default"]), ids(port, images[n], canary.ref)), 1)
        if workers == 1:
            wanted = each.sum(0)
            assert found["table"] == wanted.tolist()
            rows, columns = linear_sum_assignment(-wanted)
            assert found["agreement"]["one_to_one"] == wanted[rows, columns].sum() / wanted.sum()
        else:  # every worker counts an image once
            assert (np.array(found["table"]) >= each.sum(0)).all()
            assert (np.array(found["table"]) <= 2 * each.sum(0)).all()
            killed_in_turn(running.pid, port, found)
        done.clear()
        answered.clear()
        asking = [threading.Thread(target=keep_asking, args=(k * 10,)) for k in range(4)]
        for thread in asking:
            thread.start()
        wait_until(lambda: len(answered) > 40, 60)
        body = json.loads(ask(port, "/models/canary/promote", b"", "POST")[0])
        assert body["elsewhere"] == {}
        before = len(answered)
        wait_until(lambda: len(answered) > before + 60, 60)
        done.set()
        for thread in asking:
            thread.join()
        assert not failed
        assert {model for _, model in answered[-20:]} == {canary.ref}
