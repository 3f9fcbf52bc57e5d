"""`tessera bench`: against a real server, and against one that refuses."""

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models.io.decode import decode
from tessera.commands import bench
from tests.service.answers import JPEG, PNG
from tests.tessera.client.scripted import answer, scripted

MODELS = answer("200 OK", b'{"models":[{"name":"a","state":"ready","default":true}]}', content_type="application/json")
READY = answer("200 OK", b'{"ready":true}', content_type="application/json")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tessera bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_server_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> None:
    given = (
        "--url",
        url,
        "--key",
        "secret",
        "--seconds",
        "0.3",
        "--warmup",
        "2",
        "--concurrency",
        "2",
        "--size",
        "64x48",
    )
    assert run(monkeypatch, *given, "--json", "--option", "k=3") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"].startswith("tiny@")
    assert report["errors"] == {}
    assert report["answers"] > 0
    assert report["images_per_s"] == pytest.approx(report["answers"] / report["seconds"], rel=1e-2)
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert run(monkeypatch, *given) == 0
    assert "images/s" in capsys.readouterr().out


def test_errors_are_counted_by_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"no image at all, but some text")
    arguments = (
        "--url",
        url,
        "--key",
        "secret",
        "--images",
        str(tmp_path),
        "--seconds",
        "0.1",
        "--warmup",
        "0",
        "--json",
    )
    assert run(monkeypatch, *arguments) == 1
    report = json.loads(capsys.readouterr().out)
    assert list(report["errors"]) == ["400 Image error"]
    assert report["latency_ms"] is None


def test_a_refusal_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    full = answer("503 Service Unavailable", b"full", retry_after="0")
    with scripted([READY, MODELS, full, *[full] * 50]) as server:
        arguments = ("--url", server.url, "--seconds", "0.1", "--warmup", "0", "--concurrency", "1", "--json")
        assert run(monkeypatch, *arguments, "--size", "8x8") == 1
    assert set(json.loads(capsys.readouterr().out)["errors"]) == {"503 Service Unavailable"}


def test_every_jpeg_is_another_file_of_the_same_picture() -> None:
    files = list(islice(bench._fresh([JPEG, PNG]), 6))
    assert len({hashlib.sha256(file).digest() for file in files}) == 4
    assert all((decode(file).image == decode(JPEG).image).all() for file in files[::2])
    drawn = bench._drawn(36, 48)
    assert {decode(file).image.shape for file in drawn} == {(36, 48, 3)}
    assert np.std(decode(drawn[0]).image) > 10


@pytest.mark.parametrize(
    "arguments", [("--size", "big"), ("--option", "k"), ("--images", "/nowhere/at/all"), ("--url", "no place")]
)
def test_wrong_usage_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *arguments, *(("--size", "8x8") if "--size" not in arguments else ())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


@pytest.mark.slow
def test_without_an_address_a_server_of_the_embedded_default_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--seconds", "1", "--warmup", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("street@")
