"""The memory of choices: what was kept comes back, the oldest make room, and nothing half-written stays."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from service.engines import selection_cache
from service.engines.selection_cache import Memory


def test_what_was_kept_comes_back_and_nothing_else_stays(tmp_path: Path) -> None:
    kept = Memory(tmp_path / "new" / "engines.json")
    assert kept.recall("a") == (None, None)
    kept.keep("a", "openvino", "why")
    kept.keep("b", "onnxruntime", "")
    kept.keep("a", "onnxruntime", "why not")
    assert Memory(tmp_path / "new" / "engines.json").recall("a") == ("onnxruntime", "why not")
    assert kept.recall("b") == ("onnxruntime", "")
    assert os.listdir(tmp_path / "new") == ["engines.json"]


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_cache, "_KEPT", 3)
    kept = Memory(tmp_path / "engines.json")
    for key in "abca":  # `a` becomes the newest again
        kept.keep(key, "onnxruntime", key)
    kept.keep("d", "onnxruntime", "d")
    assert [kept.recall(key)[0] is not None for key in "abcd"] == [True, False, True, True]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Memory(tmp_path / "engines.json")
    kept.keep("a", "openvino", "why")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(selection_cache.os, "replace", full)
    with caplog.at_level(logging.INFO):
        kept.keep("a", "onnxruntime", "other")
    assert kept.recall("a") == ("openvino", "why")
    assert os.listdir(tmp_path) == ["engines.json"]
    assert "no space left" in caplog.text
