"""Where the work is done, as it is typed; no Ray is started."""

from pathlib import Path

import pytest

from models.errors import UsageError
from service.commands.segment_place import place_of
from service.settings import Settings


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rya", "0", None, 0), "no such engine: 'rya'; did you mean 'ray'"),
        (("local", "2-4", None, 0), "--workers MIN-MAX is for --engine ray"),
        (("local", "0", "auto", 0), "--ray-address is for --engine ray"),
        (("local", "0", None, 0.5), "--gpus is for --engine ray"),
        (("ray", "x", None, 0), "--workers 'x': give a number from 0 to 1024"),
        (("ray", "4-2", None, 0), "--workers '4-2': give a number"),
        (("ray", "0-2", None, 0), "--workers '0-2': give a number"),
        (("ray", "1025", None, 0), "--workers '1025': give a number"),
        (("ray", "-1", None, 0), "--workers '-1': give a number"),
        (("ray", "٣", None, 0), "--workers '٣': give a number"),
        (("ray", "0", None, 1.5), "--gpus 1.5: give a part of one GPU, or several whole ones"),
        (("ray", "0", None, float("nan")), "--gpus nan: give a part"),
        (("ray", "0", "ray://head:10001", 0), "--ray-address 'ray://head:10001': give auto, or HOST:PORT"),
        (("ray", "0", "head", 0), "--ray-address 'head': give auto, or HOST:PORT"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, str, str | None, float], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        place_of(*words)
    assert sentence in str(raised.value)


def test_settings_are_those_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = Settings(bundles=(Path("a"),), state=Path("state"), workers=7)
    assert place_of("local", "0", None, 0).settings(given) == given
    assert place_of("local", "3", None, 0).settings(given).workers == 3
    on_ray = place_of("ray", "2-3", None, 0).settings(given)
    assert (on_ray.bundles, on_ray.state, on_ray.workers) == ((tmp_path / "a",), tmp_path / "state", 0)
    assert on_ray.engine == "onnxruntime"
    assert place_of("ray", "0", "auto", 0.25).settings(given).engine == "cuda"
    int8 = given.model_copy(update={"engine": "onnxruntime-int8"})
    assert place_of("ray", "0", "[::1]:6379", 0.25).settings(int8).engine == "onnxruntime-int8"
