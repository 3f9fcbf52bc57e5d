"""The CRF on the device, for many requests: what goes together, in which order, and what happens when it goes wrong."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
import pytest

from models import refine
from models.crf.cuda.memory import OutOfMemory
from models.crf.params import PUBLISHED, CRFError, CRFParams
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.types import Array
from service.errors import Busy, DeadlinePassed
from service.refiners import gpu_batcher, gpu_worker
from service.refiners.gpu_batcher import IMAGES, DeviceLost, GpuBatcher, NotOnDevice
from service.refiners.gpu_worker import Image, OnDevice, open_worker, proof
from service.settings import Settings
from tests.models.crf.cuda.cases import maps, picture
from tests.models.crf.cuda.emulator import Emulator, missing
from tests.service.fakes import Clock, play, until

emulated = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Fake:
    """A worker that holds until `open`. An image's number is its first pixel, and its label.

    fails   what the launch of a batch with this number raises;  most  more images have no room;  dead  works no more
    """

    def __init__(self, *, most: int = 99, fails: dict[int, Exception] | None = None) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []
        self.most, self.fails, self.dead = most, fails or {}, False

    def __call__(self, images: Sequence[Image], spec: CodeSpec, params: CRFParams) -> Sequence[Array]:
        self.batches.append([number(image.fitted) for image in images])
        assert self.open.wait(10)
        if len(images) > self.most:
            raise MemoryError
        for image in images:
            if error := self.fails.get(number(image.fitted)):
                raise error
        return [np.full(image.fitted.source, number(image.fitted), np.uint8) for image in images]

    def works(self) -> bool:
        return not self.dead


def number(fitted: Fit) -> int:
    return int(fitted.pixels[0, 0, 0])


COSINE = CodeSpec(dim=9, stride=8, assignment="cosine", temperature=2.0)
DOT = COSINE.model_copy(update={"assignment": "dot"})


def asked(
    refiner: GpuBatcher,
    i: int,
    *,
    k: int = 3,
    side: int = 8,
    spec: CodeSpec = COSINE,
    params: CRFParams = PUBLISHED,
    **options: Any,
) -> Awaitable[Array]:
    """Image i, refined."""
    scores, pixels = np.zeros((k, 1, 1), np.float32), np.full((side, side, 3), i, np.uint8)
    return refiner.refine(scores, None, Fit(pixels, (side, side + i)), spec, params, **options)


async def answers_of(refiner: GpuBatcher, fake: Fake, orders: list[dict[str, Any]]) -> list[Array | BaseException]:
    """Of orders 1, 2, …, which come while image 0 runs."""
    tasks = [asyncio.ensure_future(asked(refiner, 0))]
    await until(lambda: fake.batches == [[0]])
    tasks += [asyncio.ensure_future(asked(refiner, i, **order)) for i, order in enumerate(orders, 1)]
    await until(lambda: refiner.waiting == len(orders))
    fake.open.set()
    return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


def run(fake: Fake, orders: list[dict[str, Any]], **options: Any) -> list[Array | BaseException]:
    refiner = GpuBatcher(fake, **options)
    return play(refiner, lambda: answers_of(refiner, fake, orders))


def numbers(answers: Sequence[Array | BaseException]) -> list[Any]:
    """An answer's label, or its error's kind."""
    return [type(answer) if isinstance(answer, BaseException) else int(answer[0, 0]) for answer in answers]


def test_what_waits_goes_together_whatever_its_size_first_in_first_out() -> None:
    fake = Fake()
    answers = run(fake, [{"side": 4 + i} for i in range(10)])
    assert fake.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10]]
    assert IMAGES == 8
    assert numbers(answers) == list(range(1, 11))
    assert [answer.shape for answer in answers if isinstance(answer, np.ndarray)] == [
        (4 + i, 5 + 2 * i) for i in range(10)
    ]


def test_only_one_k_and_the_same_parameters_share_a_launch_and_the_first_in_line_leads() -> None:
    fake = Fake()
    few, nearest = CRFParams(iterations=3), COSINE.model_copy(update={"interpolation": "nearest"})
    orders = [{}, {"k": 5}, {"params": few}, {"k": 5}, {}, {"spec": DOT}, {"spec": nearest}]
    assert numbers(run(fake, orders)) == [1, 2, 3, 4, 5, 6, 7]
    assert fake.batches == [[0], [1, 5], [2, 4], [3], [6], [7]]


def test_the_bytes_of_a_launch_are_bounded_but_one_image_is_never_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_batcher, "TRANSFERRED", 1000)  # one of side 8 takes some 270
    fake = Fake()
    run(fake, [{}, {}, {"side": 40}, {}, {}])
    assert fake.batches == [[0], [1, 2], [3], [4, 5]]


def test_a_lone_image_does_not_wait_for_company() -> None:
    fake = Fake()
    fake.open.set()
    refiner = GpuBatcher(fake)
    assert play(refiner, lambda: asked(refiner, 7))[0, 0] == 7


def test_a_bad_image_is_alone_in_its_error() -> None:
    fake = Fake(fails={2: CRFError("too small"), 4: ValueError("no codes")})
    answers = run(fake, [{}] * 5)
    assert numbers(answers) == [1, CRFError, 3, ValueError, 5]
    assert fake.batches == [[0], [1, 2, 3, 4, 5], [1], [2], [3], [4], [5]]


def test_too_large_a_batch_is_halved_and_too_large_an_image_is_left_to_the_cpu() -> None:
    fake = Fake(most=2, fails={5: OutOfMemory("the CRF of an image of 9×9 needs 5 MB")})
    answers = run(fake, [{}] * 5)
    assert fake.batches == [[0], [1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [3], [4, 5], [4], [5]]
    assert numbers(answers) == [1, 2, 3, 4, NotOnDevice]
    assert "needs 5 MB" in str(answers[-1])


def test_a_failure_of_the_kernels_leaves_its_image_to_the_cpu_and_the_device_serves_on() -> None:
    fake = Fake(fails={2: RuntimeError("NVRTC")})
    assert numbers(run(fake, [{}] * 3)) == [1, NotOnDevice, 3]


def test_a_lost_device_is_told_to_all_who_wait_and_who_come_later_and_once_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = Fake(fails={1: RuntimeError("an illegal memory access was encountered")})
    fake.dead = True
    refiner = GpuBatcher(fake)

    async def scenario() -> list[Array | BaseException]:
        assert refiner.alive
        answers = await answers_of(refiner, fake, [{}, {}, {"k": 5}])
        assert not refiner.alive
        with pytest.raises(DeviceLost, match="illegal memory"):
            await asked(refiner, 9)
        return answers

    assert numbers(play(refiner, scenario)) == [DeviceLost] * 3
    assert fake.batches == [[0], [1, 2]]
    assert [record.levelno for record in caplog.records if "the CPU goes on" in record.message] == [logging.ERROR]


def test_a_device_lost_between_the_halves_keeps_what_was_answered() -> None:
    fake = Fake(most=1, fails={2: RuntimeError("gone")})
    fake.dead = True
    assert numbers(run(fake, [{}] * 4)) == [1, DeviceLost, DeviceLost, DeviceLost]


def test_a_deadline_that_passed_is_not_launched() -> None:
    clock = Clock()
    fake = Fake()
    refiner = GpuBatcher(fake, clock=clock)

    async def scenario() -> list[Array | BaseException]:
        first = asyncio.ensure_future(asked(refiner, 0))
        await until(lambda: fake.batches == [[0]])
        tasks = [asyncio.ensure_future(asked(refiner, i, deadline=clock.now + 100 * i)) for i in (1, 2)]
        await until(lambda: refiner.waiting == 2)
        clock.now += 150
        fake.open.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    assert numbers(play(refiner, scenario)) == [0, DeadlinePassed, 2]
    assert fake.batches == [[0], [2]]


def test_keys_take_turns_on_the_device_too() -> None:
    fake = Fake()
    orders = [{"key": "a", "k": 3 + i} for i in range(4)]  # no two share a launch
    run(fake, [*orders, {"key": "b", "k": 9}])
    assert fake.batches.index([5]) <= 2


def test_who_leaves_while_waiting_is_never_launched() -> None:
    fake = Fake()
    refiner = GpuBatcher(fake)

    async def scenario() -> list[Array | BaseException]:
        first = asyncio.ensure_future(asked(refiner, 0))
        await until(lambda: fake.batches == [[0]])
        tasks = [asyncio.ensure_future(asked(refiner, i)) for i in (1, 2)]
        await until(lambda: refiner.waiting == 2)
        tasks[0].cancel()
        await asyncio.sleep(0)
        fake.open.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    assert numbers(play(refiner, scenario)) == [0, asyncio.CancelledError, 2]
    assert fake.batches == [[0], [2]]


def test_closing_answers_what_runs_and_refuses_what_waits() -> None:
    fake = Fake()
    refiner = GpuBatcher(fake)

    async def scenario() -> list[Array | BaseException]:
        first = asyncio.ensure_future(asked(refiner, 0))
        await until(lambda: fake.batches == [[0]])
        second = asyncio.ensure_future(asked(refiner, 1))
        await until(lambda: refiner.waiting == 1)
        refiner.close()
        fake.open.set()
        with pytest.raises(Busy, match="put away"):
            await asked(refiner, 2)
        return await asyncio.gather(first, second, return_exceptions=True)

    assert numbers(play(refiner, scenario)) == [0, Busy]


@emulated
def test_labels_are_the_cpus_even_where_probabilities_are_flat() -> None:
    """Photos of several sizes, letterboxed and whole, in one launch of the kernels."""
    fits = [
        Fit(picture(48, 64), (60, 80)),
        Fit(picture(40, 56, 1), (50, 52), (0.0, 0.125, 1.0, 0.75)),
        Fit(picture(32, 32, 2), (32, 32)),
    ]
    refiner = GpuBatcher(OnDevice(Emulator()))
    given = []
    for seed, fit in enumerate(fits):
        height, width = fit.pixels.shape[:2]
        scores = maps(27, height, width, seed, 0.5)[:, ::8, ::8].copy()
        given.append((scores, maps(9, height // 8, width // 8, seed), fit))

    async def scenario() -> list[Array]:
        return await asyncio.gather(*(refiner.refine(*one, COSINE, PUBLISHED) for one in given))

    ours = play(refiner, scenario)
    expected = [refine.refine(*one, COSINE) for one in given]
    assert [one.shape for one in ours] == [fit.source for fit in fits]
    equal = np.concatenate([(a == b).ravel() for a, b in zip(ours, expected, strict=True)])
    assert equal.mean() >= 0.9999


@emulated
def test_the_devices_own_refusals_reach_their_image_alone() -> None:
    refiner = GpuBatcher(OnDevice(Emulator()))
    good, bad = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float64)
    fit = Fit(picture(16, 16), (16, 16))

    async def scenario() -> list[Any]:
        tasks = [refiner.refine(scores, None, fit, DOT, PUBLISHED) for scores in (good, bad, good)]
        tasks.append(refiner.refine(good, None, fit, DOT, CRFParams(bilateral_srgb=0.1)))
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third, fourth = play(refiner, scenario)
    np.testing.assert_array_equal(first, third)
    assert "float64" in str(second)
    assert isinstance(fourth, CRFError)


@emulated
def test_memory_that_does_not_suffice_is_the_cpus_work() -> None:
    refiner = GpuBatcher(OnDevice(Emulator(), budget=100_000))
    with pytest.raises(NotOnDevice, match="no room"):
        play(refiner, lambda: asked(refiner, 1, side=32, spec=DOT))


@emulated
def test_a_sound_device_is_proved_and_works() -> None:
    worker = OnDevice(Emulator())
    assert proof(worker) >= 0.9999
    assert worker.works()


def test_a_cpu_engine_or_no_gpu_leaves_the_cpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(gpu_worker, "available", lambda: "cupy finds no GPU")
    monkeypatch.setattr(gpu_batcher, "driver", lambda: True)
    assert GpuBatcher.open(Settings(engine="openvino")) is None
    assert GpuBatcher.open(Settings()) is None
    assert [record.message for record in caplog.records] == [
        "the CRF runs on the CPU: TESSERA_ENGINE is openvino",
        "the CRF runs on the CPU: cupy finds no GPU",
    ]


def test_without_an_nvidia_driver_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(name: str) -> None:
        if name != installed:
            raise OSError(name)

    installed = ""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(gpu_batcher.ctypes, "CDLL", load)
    for found in (gpu_worker, gpu_batcher):
        monkeypatch.setattr(found, "available", lambda: "cupy cannot be imported")
    assert GpuBatcher.open(Settings()) is None
    installed = "libcuda.so.1"
    assert GpuBatcher.open(Settings()) is None
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.INFO]


def test_a_gpu_that_breaks_or_errs_at_the_start_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("no kernel image is available\nsecond line")

    monkeypatch.setattr(gpu_worker, "available", lambda: None)
    monkeypatch.setattr(gpu_worker, "open_device", broken)
    assert open_worker(Settings()) == "the GPU does not work (no kernel image is available)"
    monkeypatch.setattr(gpu_worker, "open_device", lambda: None)
    monkeypatch.setattr(gpu_worker, "proof", lambda worker: 0.75)
    assert "25.00 %" in str(open_worker(Settings()))


def test_a_device_that_hangs_is_given_up_and_its_images_are_the_cpus(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    refiner = GpuBatcher(fake, longest_s=5)

    async def scenario() -> None:
        running = asyncio.ensure_future(asked(refiner, 0))
        await until(lambda: fake.batches == [[0]])
        waiting = asyncio.ensure_future(asked(refiner, 1))
        await until(lambda: refiner.waiting == 1)
        for elapsed_s in (1, 4):
            refiner.tend(elapsed_s)
            assert refiner.alive
        refiner.tend(2)
        assert not refiner.alive
        for task in (running, waiting, asked(refiner, 2)):
            with pytest.raises(DeviceLost):
                await task
        await asyncio.wait_for(refiner.ended(), 1)
        fake.open.set()  # too late, and for nobody

    play(refiner, scenario)
    assert "does not come back; the CPU goes on" in caplog.text
