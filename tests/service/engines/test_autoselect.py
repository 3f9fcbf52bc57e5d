"""`auto`: the fastest engine whose labels are the reference's, measured once; engines and clock are this file's."""

import dataclasses
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest

from models.bundle import Bundle, BundleError
from models.inference import Prediction
from models.types import Array
from service import engines
from service.engines import autoselect
from service.engines.autoselect import BUDGET_S, compared, fastest, measured
from service.engines.base import Engine, EngineError, Kind
from service.settings import EngineName, Settings
from tests.service.fakes import Clock, FakeEngine


class Timed(FakeEngine):
    """Takes `seconds` a run; `wrong` swaps two clusters."""

    def __init__(self, name: str, clock: Clock, seconds: float, wrong: bool = False) -> None:
        super().__init__()
        self.name, self._clock, self._seconds, self._wrong = name, clock, seconds, wrong
        self.runs = 0

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        self._clock.now += self._seconds
        self.runs += 1
        scores = super().__call__(pixels).scores
        return Prediction(scores[:, [1, 0, 2, 3, 4]] if self._wrong else scores)

    def warm(self, shapes: Iterable[tuple[int, int]]) -> None:
        raise AssertionError("the choice warms nothing")


def kind(engine: Timed, *, exact: bool = True, module: str = "numpy") -> Kind:
    return Kind(engine.name, exact, (module,), "it", lambda bundle, settings: engine)


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path, threads=1)


def test_the_fastest_is_taken_and_says_why(
    bundle: Bundle, settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = Timed("onnxruntime", clock, 0.12), Timed("openvino", clock, 0.1)
    with caplog.at_level(logging.INFO):
        engine = measured(bundle, settings, [kind(slow), kind(fast)], clock)
    assert engine is fast
    assert slow.closed
    assert not fast.closed
    assert engine.note == (
        "openvino is the fastest here: 100.0 ms an image, onnxruntime 120.0 ms;"
        " labels agree with onnxruntime's on 100.00% of the golden image"
    )
    assert [record.message for record in caplog.records] == [f"{bundle.ref}: {engine.note}"]


def test_measuring_takes_turns_and_two_seconds(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    first, second = Timed("onnxruntime", clock, 0.2), Timed("openvino", clock, 0.3)
    measured(bundle, settings, [kind(first), kind(second)], clock)
    compare = 0.2 + 0.3 + 0.2  # the label maps
    assert clock.now - compare <= BUDGET_S + 1e-9
    assert second.runs == 1 + 4


def test_a_network_slower_than_the_budget_runs_once(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    first, second = Timed("onnxruntime", clock, 30), Timed("openvino", clock, 20)
    assert measured(bundle, settings, [kind(first), kind(second)], clock) is second
    assert second.runs == 2  # the label map, and the clock


def test_one_that_labels_otherwise_is_not_taken(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    slow, wrong = Timed("onnxruntime", clock, 0.2), Timed("openvino", clock, 0.01, wrong=True)
    engine = measured(bundle, settings, [kind(slow), kind(wrong)], clock)
    assert engine is slow
    assert wrong.closed
    assert f"openvino disagrees on {(bundle.golden.labels < 2).mean():.2%}" in (engine.note or "")


def test_one_that_does_not_open_is_left_out(
    bundle: Bundle, settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(bundle: Bundle, settings: Settings) -> Engine:
        raise BundleError("an operator it does not know")

    good = Timed("onnxruntime", clock, 0.2)
    bad = dataclasses.replace(kind(Timed("openvino", clock, 0.1)), open=broken)
    assert measured(bundle, settings, [kind(good), bad], clock) is good
    assert "an operator it does not know" in caplog.text


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[Kind]:
    """Two engines for `fastest`, the second the faster, by this file's clock."""
    monkeypatch.setattr(autoselect, "measured", lambda *given: measured(*given, clock=clock))
    return [kind(Timed("onnxruntime", clock, 0.2)), kind(Timed("openvino", clock, 0.1))]


def test_the_choice_is_remembered(bundle: Bundle, settings: Settings, clock: Clock, two: list[Kind]) -> None:
    first = fastest(bundle, settings, two)
    spent, note = clock.now, first.note
    again = fastest(bundle, settings, two)
    assert again.name == first.name == "openvino"
    assert again.note == note
    assert clock.now == spent  # not a single run


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.model_copy(update={"threads": 2}),
        lambda settings: settings.model_copy(update={"state": settings.state / "elsewhere"}),
    ],
)
def test_another_machine_measures_again(
    bundle: Bundle, settings: Settings, clock: Clock, two: list[Kind], change: object
) -> None:
    assert callable(change)
    fastest(bundle, settings, two)
    spent = clock.now
    fastest(bundle, change(settings), two)
    assert clock.now > spent


def test_other_versions_measure_again(bundle: Bundle, settings: Settings, clock: Clock, two: list[Kind]) -> None:
    fastest(bundle, settings, two)
    spent = clock.now
    fastest(bundle, settings, [two[0], dataclasses.replace(two[1], modules=("pydantic",))])
    assert clock.now > spent


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a": 1}', "\x00\xff"])
def test_a_damaged_memory_is_ignored_and_mended(
    bundle: Bundle, settings: Settings, two: list[Kind], damage: str
) -> None:
    file = settings.state / "engines.json"
    file.write_bytes(damage.encode("latin-1"))
    assert fastest(bundle, settings, two).name == "openvino"
    assert any(bundle.digest in key for key in json.loads(file.read_text()))


def test_a_name_in_memory_that_is_not_installed_is_ignored(
    bundle: Bundle, settings: Settings, clock: Clock, two: list[Kind]
) -> None:
    fastest(bundle, settings, two)
    file = settings.state / "engines.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({key: {"engine": "abacus", "note": 7} for key in kept}))
    spent = clock.now
    assert fastest(bundle, settings, two).name == "openvino"
    assert clock.now > spent


def test_where_nothing_can_be_written_it_measures_again(
    bundle: Bundle, settings: Settings, clock: Clock, two: list[Kind]
) -> None:
    (settings.state / "file").write_text("in the way")
    blocked = settings.model_copy(update={"state": settings.state / "file"})
    assert fastest(bundle, blocked, two).name == "openvino"
    spent = clock.now
    assert fastest(bundle, blocked, two).name == "openvino"
    assert clock.now > spent


def test_one_engine_measures_nothing(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    only = Timed("onnxruntime", clock, 0.2)
    absent = kind(Timed("openvino", clock, 0.1), module="no_such_module")
    opt_in = kind(Timed("onnxruntime-int8", clock, 0.05), exact=False)
    assert fastest(bundle, settings, [absent, kind(only), opt_in]) is only
    assert clock.now == 0
    assert not list(settings.state.iterdir())


def test_no_engine_at_all_says_what_to_install(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    with pytest.raises(EngineError, match="`cpu` extra"):
        fastest(bundle, settings, [kind(Timed("onnxruntime", clock, 0.1), module="no_such_module")])


def test_an_engine_taken_by_name_says_how_far_it_agrees(bundle: Bundle, settings: Settings, clock: Clock) -> None:
    exact, rough = Timed("onnxruntime", clock, 0.1), Timed("rough", clock, 0.05, wrong=True)
    engine = compared(bundle, settings, kind(rough, exact=False), [kind(rough, exact=False), kind(exact)])
    assert engine is rough
    same = (bundle.golden.labels >= 2).mean()
    assert engine.note == f"rough: labels agree with onnxruntime's on {same:.2%} of the golden image"
    assert exact.closed


def test_the_folder_is_the_registry() -> None:
    named = engines.kinds()
    assert sorted(["auto", *named]) == sorted(get_args(EngineName))
    assert [name for name, found in named.items() if found.exact] == ["onnxruntime", "openvino"]


def test_an_engine_that_is_not_installed_says_what_to_install(
    bundle: Bundle, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = kind(Timed("openvino", clock, 0.1), module="no_such_module")
    monkeypatch.setattr(engines, "kinds", lambda: {"openvino": absent})
    with pytest.raises(EngineError, match="TESSERA_ENGINE=openvino needs no_such_module: install it"):
        engines.open_engine(bundle, settings.model_copy(update={"engine": "openvino"}))
