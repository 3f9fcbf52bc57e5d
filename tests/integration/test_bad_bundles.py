"""Several hundred bad bundles: each is refused with a sentence, and a server that is asked to load them goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import onnx_rules
from models.bundle import Bundle, BundleError
from models.io.encode import encode
from tests.bad_bundles import bad_bundles
from tests.service.fakes import free_port
from tests.tiny import bands

ROOT = Path(__file__).parents[2]
ADMIN = {"X-API-Key": "open sesame"}


def judged(folder: Path) -> tuple[str, str]:
    """By what a bundle is refused, and what is said of it."""
    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        return "files", str(error)
    try:
        onnx_rules.check(bundle.encoder_bytes())
    except BundleError as error:
        return "rules", str(error)
    return "proof", ""


@pytest.mark.parametrize("every", [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_each_is_refused_where_it_has_to_be_with_one_sentence(tiny_bundle: Path, tmp_path: Path, every: int) -> None:
    cases = [case for i, case in enumerate(bad_bundles(tiny_bundle)) if i % every == 0]
    assert len(cases) * every > 500
    for case in cases:
        folder = case.write(tiny_bundle, tmp_path / "each" / case.name)
        found, said = judged(folder)
        assert found == case.found, (case.name, said)
        assert found == "proof" or re.fullmatch(r"[^\x00-\x1f]{10,600}", said), case.name
        said.encode()


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.slow
def test_a_server_under_load_refuses_them_all_and_answers_on(tiny_bundle: Path, tmp_path: Path) -> None:
    cases = list(bad_bundles(tiny_bundle))
    home, port = tmp_path / "models", free_port()
    for case in cases:
        case.write(tiny_bundle, home / case.name)
    environment = {
        **os.environ,
        "TESSERA_STATE": str(tmp_path / "state"),
        "TESSERA_MODELS": str(home),
        "TESSERA_ADMIN_KEY": ADMIN["X-API-Key"],
        "TESSERA_CACHE_BYTES": "0",
        "TESSERA_ENGINE": "onnxruntime",
        "TESSERA_ACCESS_LOG": "false",
    }
    command = [sys.executable, "-m", "tessera.cli", "serve", "--port", str(port), "--bundle", str(tiny_bundle)]
    script = f"import sys; sys.argv = {command[2:]!r}; from tessera.cli import main; main()"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=log)
    url, photo = f"http://127.0.0.1:{port}", encode(bands(), "png")
    answers: set[bytes] = set()
    waits: list[float] = []
    wrong: list[Any] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            began = time.monotonic()
            status, body = ask(f"{url}/segment?format=npy", photo)
            waits.append(time.monotonic() - began)
            answers.add(body)
            if status != 200:
                wrong.append((status, body[:200]))

    def rss_mb() -> float:
        return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    clients = [threading.Thread(target=load) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while not _ready(url):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        before = json.loads(ask(f"{url}/models")[1])["models"][0]["digest"]
        for client in clients:
            client.start()
        rss: list[float] = []
        for case in cases:
            status, body = ask(f"{url}/models/{case.name}/load", b"", **ADMIN)
            assert status == 422, (case.name, status, body)
            assert json.loads(body)["detail"], case.name
            rss.append(rss_mb())
        ready = [m for m in json.loads(ask(f"{url}/models")[1])["models"] if m["state"] == "ready"]
        assert [(m["name"], m["digest"]) for m in ready] == [("tiny", before)]
        assert server.poll() is None
    finally:
        done.set()
        for client in clients:
            if client.ident:
                client.join()
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(40)
        finally:
            server.kill()
    print(
        f"{len(cases)} bundles, {len(waits)} answers, {max(waits):.2f} s the longest,"
        f" RSS {rss[20]:.0f} to {max(rss[20:]):.0f} MB, {rss[-1]:.0f} at the end"
    )
    assert wrong == []
    assert len(answers) == 1
    assert len(waits) > len(cases)
    assert np.median(rss[-50:]) - np.median(rss[20:70]) < 20


def _ready(url: str) -> bool:
    try:
        return ask(f"{url}/readyz")[0] == 200
    except OSError:
        return False
