"""Vectors inside numba: the same numbers as numpy, at every width."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.crf.cpu import jit, simd
from models.crf.cpu.simd import (
    UNITS,
    add,
    at,
    exp,
    fill,
    first_lane,
    fma,
    highest,
    less,
    load,
    maximum,
    nearest,
    store,
    subtract,
    times,
    total,
    where,
)

compiled = jit.njit


@compiled
def everything(a, b, out, unit):  # type: ignore[no-untyped-def]
    width = 1 << len(unit)
    x, y = load(a, 1, unit), load(b, 0, unit)
    store(out, 0, fma(at(b, 2), x, y))
    store(out, width, add(x, fill(np.float32(3), unit)))
    store(out, 2 * width, maximum(x, y))
    store(out, 3 * width, exp(x))
    return highest(x), total(x)


@pytest.mark.parametrize("unit", UNITS)
def test_operations(unit: tuple[int, ...]) -> None:
    width = 1 << len(unit)
    rng = np.random.default_rng(width)
    a, b = rng.uniform(-20, 5, (2, width + 1)).astype(np.float32)
    out = np.zeros(4 * width + 1, np.float32)
    top, mass = everything(a, b, out, unit)
    x, y = a[1:], b[:width]
    expected = np.concatenate([b[2] * x + y, x + 3, np.maximum(x, y), np.exp(x), [0]])
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    assert top == x.max()
    assert mass == pytest.approx(x.sum(), rel=1e-5)


@compiled
def comparisons(a, b, out, unit):  # type: ignore[no-untyped-def]
    width = 1 << len(unit)
    x, y = load(a, 0, unit), load(b, 0, unit)
    store(out, 0, subtract(x, y))
    store(out, width, times(at(b, 1), x))
    store(out, 2 * width, nearest(x))
    store(out, 3 * width, less(x, y))
    store(out, 4 * width, where(y, at(b, 3), x, y))
    return first_lane(y, at(b, 3)), first_lane(y, np.float32(99))


@pytest.mark.parametrize("unit", [(), (0, 0), *UNITS])
def test_comparisons(unit: tuple[int, ...]) -> None:
    width = 1 << len(unit)
    a, b = np.random.default_rng(width).uniform(-5, 5, (2, max(width, 4))).astype(np.float32)
    b[-1] = b[3] = b[0]
    out = np.zeros(5 * width, np.float32)
    found, missing = comparisons(a, b, out, unit)
    x, y = a[:width], b[:width]
    np.testing.assert_array_equal(
        out, np.concatenate([x - y, b[1] * x, np.rint(x), x < y, np.where(y == b[3], x, y)]).astype(np.float32)
    )
    assert (found, missing) == (0, width)


def test_exp_over_its_range() -> None:
    x = np.concatenate([[-1e30, -88], np.linspace(-86.9, 88, 30)]).astype(np.float32)
    out = np.zeros(4 * 32, np.float32)
    everything(np.concatenate([[0], x]).astype(np.float32), np.zeros(33, np.float32), out, UNITS[2])
    assert not out[96:98].any(), "exactly zero, so that padding never counts"
    np.testing.assert_allclose(out[98:], np.exp(x[2:].astype(np.float64)), rtol=5e-7)


@pytest.mark.parametrize(("channels", "width"), [(1, 8), (8, 8), (9, 16), (27, 32), (32, 32), (100, 32)])
def test_the_unit_fits(channels: int, width: int) -> None:
    assert 1 << len(simd.unit_for(channels)) == width


def twice(x: float) -> float:
    """What the next tests compile."""
    return 2 * x


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for code of this test's own."""
    monkeypatch.setattr(jit, "FOLDER", tmp_path)
    return tmp_path


def test_code_is_kept_where_there_is_a_folder(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit.config.CACHE_DIR
    assert jit.compiled(twice)(3.0) == 6
    assert len(list(kept.glob("*/*.nb?"))) == 2
    again = jit.compiled(twice)
    assert again(3.0) == 6
    assert again.stats.cache_hits  # type: ignore[attr-defined]
    assert before == jit.config.CACHE_DIR
    monkeypatch.setattr(jit, "FOLDER", None)
    alone = jit.compiled(twice)
    assert alone(3.0) == 6
    assert alone.stats.cache_path is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_damaged_code_is_compiled_anew_and_kept(
    kept: Path, kind: str, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    jit.compiled(twice)(3.0)
    (file,) = kept.glob(f"*/*.{kind}")
    file.write_bytes(file.read_bytes()[:left])
    assert jit.compiled(twice)(3.0) == 6
    assert "the compiled code of twice is damaged" in caplog.text
    whole = jit.compiled(twice)
    assert whole(3.0) == 6
    assert whole.stats.cache_hits  # type: ignore[attr-defined]


def test_a_full_disk_is_no_failure(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jit.FunctionCache, "_save_overload", full)
    assert jit.compiled(twice)(3.0) == 6
    assert not list(kept.glob("*/*.nbc"))


def test_code_is_written_by_one_process_at_a_time(kept: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with ThreadPoolExecutor(1) as thread, (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = thread.submit(lambda: jit.compiled(twice)(3.0))
        with pytest.raises(TimeoutError):
            running.result(0.5)
        assert not list(kept.glob("*/*.nb?"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert running.result(20) == 6
    assert len(list(kept.glob("*/*.nb?"))) == 2
