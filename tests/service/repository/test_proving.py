"""A network is run by another process first: whatever it does there, this one goes on and says why it is not served."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.bundle import Bundle, BundleError
from models.inference import Prediction
from service import engines
from service.engines.autoselect import reference_first
from service.errors import BadModel
from service.repository import proving, proving_process
from service.repository.proving import Prover
from service.repository.registry import Registry
from service.settings import Settings
from tests.bad_bundles import BadBundle, bad_bundles
from tests.service.fakes import wait_until
from tests.service.registries import settings_of, within
from tests.service.repository import proving_doubles
from tests.tiny import MeanColor, mean_color_onnx


@pytest.fixture
def prover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prover]:
    """A prover that knows only what it proved itself."""
    monkeypatch.setattr(proving, "_file", lambda settings: tmp_path / "proofs.json")
    return lambda **settings: Prover(Settings(state=tmp_path, **settings))


def cases(tiny_bundle: Path, found: str) -> dict[str, BadBundle]:
    return {case.name: case for case in bad_bundles(tiny_bundle) if case.found == found}


def test_a_sound_bundle_is_proved_once(
    prover: Callable[..., Prover], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, runs = Bundle.load(tiny_bundle), []
    run = Prover._run
    monkeypatch.setattr(
        Prover, "_run", lambda self, bundle: runs.append(bundle.ref) or (run(self, bundle) if not runs[1:] else None)
    )
    prover().prove(bundle)
    prover().prove(bundle)
    assert len(runs) == 1
    for name, another in (
        ("tessera_version", lambda: "another"),
        ("version", lambda library: f"{library} of tomorrow"),
    ):
        monkeypatch.setattr(proving, name, another)
        prover().prove(bundle)
        prover().prove(bundle)
    monkeypatch.setattr(proving.hardware, "processor", lambda: "another")
    prover().prove(bundle)
    assert len(runs) == 4


def test_a_bad_network_is_refused_with_its_reason_and_not_remembered(
    prover: Callable[..., Prover], tiny_bundle: Path, tmp_path: Path
) -> None:
    case = cases(tiny_bundle, "rules")["network-external"]
    bundle = Bundle.load(case.write(tiny_bundle, tmp_path / "bad"))
    with pytest.raises(BundleError, match=r"tiny@.*encoder\.onnx: the values of centroids are in another file"):
        prover().prove(bundle)
    assert not (tmp_path / "proofs.json").exists()


def test_every_network_that_is_not_the_manifests_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    kinds = reference_first(list(engines.kinds().values()))[:1]
    bad = cases(tiny_bundle, "proof")
    assert len(bad) > 8
    for name, case in bad.items():
        folder = case.write(tiny_bundle, tmp_path / name)
        with np.errstate(all="ignore"), pytest.raises(Exception, match=r".") as error:
            proving_process.prove(folder, Bundle.load(folder).digest, kinds)
        assert not isinstance(error.value, AssertionError | ImportError), name
    with pytest.raises(BundleError, match="changed while it was loaded"):
        proving_process.prove(tiny_bundle, "0" * 64, kinds)
    proving_process.prove(tiny_bundle, Bundle.load(tiny_bundle).digest, kinds)


def test_a_network_that_takes_too_much_memory_ends_its_own_process(
    prover: Callable[..., Prover], make_bundle: Callable[..., Path]
) -> None:
    model = onnx.load_from_string(mean_color_onnx())
    held = [
        helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0),
    ]
    held.append(helper.make_node("Add", ["half_", "most"], ["half"]))
    model.graph.initializer[0].name = "half_"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**27]), "large"))  # 512 MB
    for node in reversed(held):
        model.graph.node.insert(0, node)
    bundle = Bundle.load(make_bundle(encoder_onnx=model.SerializeToString()))
    with pytest.raises(BundleError, match=r"more memory than the 128 MB.*TESSERA_PROOF_BYTES=134217728"):
        prover(proof_bytes=2**27).prove(bundle)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("crash", "ended the process"),
        ("hang", r"within \d+ s .*TESSERA_PROOF_S"),
        ("spin", "longer than 1 s of a core"),
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
    monkeypatch.setattr(proving, "_PROCESS", proving_doubles.__name__)
    monkeypatch.setattr(proving, "_PATIENCE", -9 if end == "hang" else 10)
    one = prover(proof_s=1)
    with caplog.at_level(logging.ERROR), pytest.raises(BundleError, match=says):
        one.prove(Bundle.load(tiny_bundle))
    assert not one._running
    assert ("out of luck" in caplog.text) == (end == "traceback")


def test_closing_ends_what_is_being_proved_and_nothing_is_proved_any_more(
    prover: Callable[..., Prover], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_TEST_END", "hang")
    monkeypatch.setattr(proving, "_PROCESS", proving_doubles.__name__)
    bundle, one = Bundle.load(tiny_bundle), prover()
    said: list[str] = []

    def prove() -> None:
        with pytest.raises(BundleError) as error:
            one.prove(bundle)
        said.append(str(error.value))

    thread = threading.Thread(target=prove)
    thread.start()
    wait_until(lambda: bool(one._running))
    began = time.monotonic()
    one.close()
    thread.join(10)
    assert time.monotonic() - began < 5
    prove()
    assert [text.partition(": ")[2] for text in said] == ["the server stops"] * 2


def test_the_process_gives_way_and_is_the_first_to_go(
    prover: Callable[..., Prover], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_TEST_END", "hang")
    monkeypatch.setattr(proving, "_PROCESS", proving_doubles.__name__)
    one = prover()
    thread = threading.Thread(target=lambda: one._run(Bundle.load(tiny_bundle)))
    thread.start()
    wait_until(lambda: any(os.getpriority(os.PRIO_PROCESS, p.pid) == proving._NICE for p in one._running))
    one.close()
    thread.join(10)
    code = "from service.repository.proving_process import _ends_first, _limit; _ends_first(); _limit(2**28, 7);"
    code += " import resource as r; print(open('/proc/self/oom_score_adj').read(), r.getrlimit(r.RLIMIT_CPU)[0] >= 7);"
    code += " bytes(2**29)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["1000", "True"]
    assert "MemoryError" in ended.stderr


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
            proving_process.checked(bundle, lambda *_, s=scores, c=code, **__: Prediction(s, c))(pixels)


def test_a_bundle_that_is_not_proved_changes_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    folder = cases(tiny_bundle, "rules")["network-operator-Loop"].write(tiny_bundle, tmp_path / "bad")

    async def work(registry: Registry) -> None:
        before = registry.get(None)
        with pytest.raises(BadModel, match="Loop: not among the operators"):
            await registry.add(folder)
        assert registry.served == [before]
        assert (registry.leaving, registry.loading) == ([], None)

    within(settings_of(bundle, tmp_path), work)
