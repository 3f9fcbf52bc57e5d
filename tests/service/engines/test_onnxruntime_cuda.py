"""The GPU's engine, with a CPU session that plays the GPU's: padding, memory that runs out, and the way back."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.inference import self_test
from service.engines import autoselect, onnxruntime_cuda, open_engine
from service.engines.onnxruntime_cpu import CPU, session
from service.engines.onnxruntime_cuda import CUDA, TENSORRT, Cuda, open_gpu
from service.settings import Settings
from tests.tiny import MeanColor, bands

SETTINGS = Settings(engine="cuda", threads=1, max_batch_size=4)


class Device:
    """A session that says it has CUDA; `fails` is what its next runs raise, `sizes` the batches it saw."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.opens = True
        self.starts = True
        self.sizes: list[int] = []
        self.providers: list[Any] = []

    def open(self, network: bytes, settings: Settings, providers: list[Any]) -> Any:
        self.providers = providers
        if not self.opens:
            raise RuntimeError("libcudart.so.12: cannot open shared object file\n[a stack]")
        inner, device = session(network, settings, [CPU]), self

        class Session:
            def get_providers(self) -> list[str]:
                return [CUDA, CPU] if device.starts else [CPU]

            def run_with_iobinding(self, binding: Any) -> None:
                if device.fails:
                    raise device.fails
                inner.run_with_iobinding(binding)
                device.sizes.append(len(binding.copy_outputs_to_cpu()[0]))

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

        return Session()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(onnxruntime_cuda, "session", device.open)
    monkeypatch.setattr(onnxruntime_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "offered", lambda provider=CUDA: True)
    return device


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def engine(bundle: Bundle, device: Device) -> Cuda:
    found = open_gpu(bundle, SETTINGS)
    assert isinstance(found, Cuda)
    return found


def test_it_is_the_network_it_holds(bundle: Bundle, engine: Cuda) -> None:
    pixels = np.stack([bands(64, 96), bands(64, 96, (4, 3, 2, 1, 0))])
    got, expected = engine(pixels, code=True), MeanColor()(pixels, code=True)
    assert got.code is not None
    assert expected.code is not None
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(got.code, expected.code, atol=1e-5)
    assert engine(pixels).code is None
    assert (engine.name, engine.provider, list(engine.shapes)) == ("cuda", "cuda", [(64, 96)])
    assert self_test(bundle, engine) == 1.0


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [4]), (5, [8]), (16, [16]), (19, [16, 4])])
def test_batches_are_filled_up_and_the_filling_stays_out_of_the_answer(
    engine: Cuda, device: Device, count: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 64, 64, 3), np.uint8)
    engine(rng.integers(0, 256, (max(sizes), 64, 64, 3), np.uint8))  # leaves its pixels in the buffers
    device.sizes.clear()
    got = engine(pixels, code=True)
    assert device.sizes == sizes
    assert got.scores.shape[0] == count
    np.testing.assert_allclose(got.scores, MeanColor()(pixels).scores, atol=1e-5)


def test_buffers_are_kept_and_bounded(engine: Cuda) -> None:
    for height in range(8, 8 * 40, 8):
        engine(np.zeros((1, height, 64, 3), np.uint8))
    assert len(engine._buffers) == onnxruntime_cuda._BUFFERS
    host, _ = engine._buffer((1, 312, 64))
    assert engine._buffer((1, 312, 64))[0] is host


def test_warming_meets_every_size_of_batch(engine: Cuda, device: Device) -> None:
    engine.warm([(64, 64)])
    assert device.sizes == [1, 2, 4]  # max_batch_size is 4


@pytest.mark.parametrize(
    "says",
    [
        "Failed to allocate memory for requested buffer of size 5368709120",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_no_room_on_the_device_is_a_memory_error_and_the_gpu_stays(engine: Cuda, device: Device, says: str) -> None:
    device.fails = RuntimeError(says)
    with pytest.raises(MemoryError, match="no room"):
        engine(np.zeros((4, 64, 64, 3), np.uint8))
    device.fails = None
    assert len(engine(np.zeros((2, 64, 64, 3), np.uint8)).scores) == 2
    assert engine.provider == "cuda"


def test_no_room_while_warming_ends_the_warming(engine: Cuda, device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.fails = RuntimeError("out of memory")
    engine.warm([(64, 64)])
    assert "no room on the GPU for 1 images of 64×64" in caplog.text


def test_cuda_lost_while_serving_leaves_the_cpu(engine: Cuda, device: Device, caplog: pytest.LogCaptureFixture) -> None:
    pixels = bands(64, 64)[None]
    before = engine(pixels).scores
    device.fails = RuntimeError("CUDA error 700: an illegal memory access\n[a stack]")
    assert (engine(pixels).scores == before).all()
    assert (engine.name, engine.provider) == ("onnxruntime", "cpu")
    assert "the CPU goes on" in caplog.text
    assert engine.note is not None
    assert "illegal memory access" in engine.note
    assert "stack" not in engine.note
    device.fails = None
    device.sizes.clear()
    engine(pixels)
    assert device.sizes == []  # the GPU is not asked again
    engine.close()


def no_library(device: Device) -> None:
    device.opens = False


def no_provider(device: Device) -> None:
    device.starts = False


@pytest.mark.parametrize(("broken", "says"), [(no_library, "libcudart"), (no_provider, "did not start")])
def test_cuda_that_does_not_start_leaves_the_cpu(
    bundle: Bundle,
    device: Device,
    broken: Callable[[Device], None],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken(device)
    engine = open_engine(bundle, SETTINGS)
    assert (engine.name, engine.provider) == ("onnxruntime", "cpu")
    assert says in caplog.text
    assert says in (engine.note or "")
    assert "stack" not in caplog.text
    assert self_test(bundle, engine) == 1.0


@pytest.mark.parametrize(("name", "says"), [("cuda", "`gpu` extra"), ("tensorrt", "no TensorRT")])
def test_asking_for_a_gpu_where_there_is_none_warns(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "offered", lambda provider=CUDA: False)
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle, Settings.model_validate({"engine": name, "threads": 1}))
    assert engine.provider == "cpu"
    assert says in caplog.text
    assert says in (engine.note or "")


def test_a_gpu_that_works_comes_first_and_says_how_far_it_agrees(bundle: Bundle, device: Device) -> None:
    engine = open_engine(bundle, Settings(engine="auto", threads=1))
    assert engine.provider == "cuda"
    assert engine.note == "cuda: labels agree with onnxruntime's on 100.00% of the golden image"


def test_a_gpu_that_does_not_work_is_announced_by_auto(
    bundle: Bundle,
    device: Device,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoselect, "BUDGET_S", 0.02)
    device.opens = False
    engine = open_engine(bundle, Settings(engine="auto", threads=1, state=tmp_path))
    assert engine.provider == "cpu"
    assert "libcudart" in caplog.text


def test_the_device_is_asked_for_no_more_than_its_share(bundle: Bundle, device: Device, tmp_path: Path) -> None:
    settings = Settings(gpu_bytes=2**32, bundles=(tmp_path / "a", tmp_path / "b"), state=tmp_path, threads=1)
    open_gpu(bundle, settings)
    (name, options), last = device.providers
    assert (name, last) == (CUDA, CPU)
    assert options["gpu_mem_limit"] == str(2**31)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    open_gpu(bundle, settings, "tensorrt")
    assert [provider[0] for provider in device.providers[:2]] == [TENSORRT, CUDA]
    assert device.providers[0][1]["trt_engine_cache_path"] == str(tmp_path / "tensorrt")
    open_gpu(bundle, Settings(threads=1))
    assert "gpu_mem_limit" not in device.providers[0][1]
