"""A network is run by another process first: whatever it does there, this one goes on and says why it is not served."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.bundle import Bundle, BundleError
from models.inference import Prediction
from service.errors import BadModel
from service.repository import proving, proving_process
from service.repository.proving import Prover
from service.repository.registry import Registry
from service.settings import Settings
from tests.bad_bundles import bad_bundles
from tests.service.registries import settings_of, within
from tests.service.repository import proving_doubles
from tests.tiny import MeanColor, mean_color_onnx


@pytest.fixture
def prover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prover]:
    """A prover that knows only what it proved itself."""
    monkeypatch.setattr(proving, "_file", lambda settings: tmp_path / "proofs.json")
    return lambda **settings: Prover(Settings(state=tmp_path, **settings))


def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started from now on."""
    started: list[Any] = []
    popen = proving.subprocess.Popen
    monkeypatch.setattr(proving.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    return started


def test_a_sound_bundle_is_proved_once(
    prover: Callable[..., Prover], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, started = Bundle.load(tiny_bundle), processes(monkeypatch)
    prover().prove(bundle)
    prover().prove(bundle)
    assert len(started) == 1
    monkeypatch.setattr(proving, "tessera_version", lambda: "another")
    prover().prove(bundle)
    assert len(started) == 2


@pytest.mark.parametrize("name", ["network-external", "network-nan", "network-finer-than-said", "golden-of-another"])
def test_a_bad_network_is_refused_with_its_reason_and_not_remembered(
    prover: Callable[..., Prover], tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    says = {
        "network-external": "in another file",
        "network-nan": "not finite",
        "network-finer-than-said": "one every 8 pixels",
        "golden-of-another": "golden image",
    }[name]
    (case,) = [case for case in bad_bundles(tiny_bundle) if case.name == name]
    bundle = Bundle.load(case.write(tiny_bundle, tmp_path / name))
    with pytest.raises(BundleError, match=f"tiny@.*{says}") as error:
        prover().prove(bundle)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "proofs.json").exists()


def test_a_network_that_takes_too_much_memory_ends_its_own_process(
    prover: Callable[..., Prover], make_bundle: Callable[..., Path]
) -> None:
    model = onnx.load_from_string(mean_color_onnx())
    held = [helper.make_node("ConstantOfShape", ["large"], ["zeros"]), helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0)]
    held.append(helper.make_node("Add", ["half_", "most"], ["half"]))
    model.graph.initializer[0].name = "half_"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**27]), "large"))  # 512 MB
    for node in reversed(held):
        model.graph.node.insert(0, node)
    bundle = Bundle.load(make_bundle(encoder_onnx=model.SerializeToString()))
    with pytest.raises(BundleError, match=r"more memory than the 128 MB.*TESSERA_PROOF_BYTES=134217728"):
        prover(proof_bytes=2**27).prove(bundle)
    prover().prove(bundle)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("crash", "ended the process"),
        ("hang", r"within \d+ s .*TESSERA_PROOF_S"),
        ("spin", "longer than 1 s of a core"),
        ("silence", "ended the process"),
        ("chatter", "ended the process"),
        ("traceback", "ended the process"),
    ],
)
def test_however_the_process_ends_there_is_a_sentence(
    prover: Callable[..., Prover],
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: str,
    says: str,
) -> None:
    monkeypatch.setenv("TESSERA_TEST_END", end)
    monkeypatch.setattr(proving, "proving_process", proving_doubles)
    monkeypatch.setattr(proving, "_PATIENCE", -8 if end == "hang" else 10)
    started = processes(monkeypatch)
    with caplog.at_level(logging.ERROR), pytest.raises(BundleError, match=says):
        prover(proof_s=1).prove(Bundle.load(tiny_bundle))
    assert started[0].poll() is not None
    assert ("out of luck" in caplog.text) == (end == "traceback")


def test_closing_ends_what_is_being_proved_and_nothing_is_proved_any_more(
    prover: Callable[..., Prover], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_TEST_END", "hang")
    monkeypatch.setattr(proving, "proving_process", proving_doubles)
    bundle, one, started = Bundle.load(tiny_bundle), prover(), processes(monkeypatch)
    said: list[str] = []

    def prove() -> None:
        with pytest.raises(BundleError) as error:
            one.prove(bundle)
        said.append(str(error.value))

    thread = threading.Thread(target=prove)
    thread.start()
    while not one._running:
        time.sleep(0.01)
    began = time.monotonic()
    one.close()
    thread.join(10)
    assert time.monotonic() - began < 5
    prove()
    assert [text.partition(": ")[2] for text in said] == ["the server stops"] * 2
    assert len(started) == 1


def test_the_process_gives_way_and_is_the_first_to_go(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command: list[Any] = []
    monkeypatch.setattr(proving.subprocess, "Popen", lambda given, **_: command.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Prover(Settings(state=tiny_bundle / "nowhere"))._run(Bundle.load(tiny_bundle))
    code = command[0][2].partition(" from ")[0] + " from service.repository.proving_process import _ends_first as go; go();"
    code += " print(os.nice(0), open('/proc/self/oom_score_adj').read().strip())"
    said = os.popen(f'{command[0][0]} -c "{code}"').read().split()
    assert [int(number) for number in said] == [os.nice(0) + 10, 1000]


def test_an_answer_is_held_against_the_manifest(tiny_bundle: Path) -> None:
    bundle, pixels = Bundle.load(tiny_bundle), np.zeros((1, 64, 64, 3), np.uint8)
    run = proving_process.checked(bundle, MeanColor())
    assert run(pixels).scores.shape == (1, 5, 8, 8)
    sound = MeanColor()(pixels, code=True)
    assert sound.code is not None
    for scores, code, says in (
        (sound.scores[:, :4], sound.code, "scores has the shape"),
        (sound.scores, sound.code[:, :2], "code has the shape"),
        (sound.scores[0], sound.code, "scores has the shape"),
        (sound.scores.repeat(2, 2), sound.code, "one every 8 pixels"),
        (sound.scores[:, :, :0], sound.code, "cells"),
        (sound.scores, sound.code * np.inf, "code of the golden image"),
    ):
        with np.errstate(invalid="ignore"), pytest.raises(BundleError, match=says):
            proving_process.checked(bundle, lambda *_, s=scores, c=code, **__: Prediction(s, c))(pixels)  # type: ignore[misc]


def test_a_bundle_that_is_not_proved_changes_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(tiny_bundle)
    (case,) = [case for case in bad_bundles(tiny_bundle) if case.name == "network-operator-Loop"]
    folder = case.write(tiny_bundle, tmp_path / "bad")

    async def work(registry: Registry) -> None:
        before = registry.get(None)
        with pytest.raises(BadModel, match="Loop: not among the operators"):
            await registry.add(folder)
        assert registry.served == [before]
        assert (registry.leaving, registry.loading) == ([], None)

    within(settings_of(bundle, tmp_path), work)
