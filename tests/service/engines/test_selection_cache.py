"""The memory of choices: what was kept comes back, the oldest make room, and nothing half-written stays."""

import logging
import os
from pathlib import Path

import pytest

from service.engines import selection_cache
from service.engines.selection_cache import SelectionCache


def test_what_was_kept_comes_back_and_nothing_else_stays(tmp_path: Path) -> None:
    kept = SelectionCache(tmp_path / "new" / "engines.json")
    assert kept.get("a") == (None, None)
    kept.put("a", "openvino", "why")
    kept.put("b", "onnxruntime", "")
    kept.put("a", "onnxruntime", "why not")
    assert SelectionCache(tmp_path / "new" / "engines.json").get("a") == ("onnxruntime", "why not")
    assert kept.get("b") == ("onnxruntime", "")
    assert os.listdir(tmp_path / "new") == ["engines.json"]


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_cache, "_KEPT", 3)
    kept = SelectionCache(tmp_path / "engines.json")
    for key in "abca":  # `a` becomes the newest again
        kept.put(key, "onnxruntime", key)
    kept.put("d", "onnxruntime", "d")
    assert [kept.get(key)[0] is not None for key in "abcd"] == [True, False, True, True]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = SelectionCache(tmp_path / "engines.json")
    kept.put("a", "openvino", "why")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.INFO):
        kept.put("a", "onnxruntime", "other")
    assert kept.get("a") == ("openvino", "why")
    assert os.listdir(tmp_path) == ["engines.json"]
    assert "no space left" in caplog.text
