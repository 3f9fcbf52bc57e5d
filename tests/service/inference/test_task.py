"""One image's way: what of its file is shown, what it may hold, where it waits, and what is kept of it."""

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from benchmarks.hostile_files import bmp_runs, packed, tiff
from models.crf import dense
from models.deadline import Deadline, DeadlineExceeded
from models.io.decode import inspect
from models.io.encode import encode
from models.io.samples import Choice, Decoded, NoSuchPart
from models.preprocess import fitted_size
from service.inference import task
from service.inference.options import Options
from service.inference.task import ImageTask
from tests.service.answers import PHOTO, PNG, labels, problem
from tests.service.fakes import Slow, files_show, wait_until
from tests.service.inference.test_pipeline import metric


def gray(brightness: int) -> bytes:
    return encode(np.full((64, 64, 3), brightness, np.uint8), "png")


SMALL = [gray(i) for i in range(10)]


def test_an_image_whose_network_answer_is_kept_needs_room_for_its_pixels_all_the_same(serve: Any) -> None:
    with serve(max_queue_mpx=0.01) as client:  # the photo has 0.006
        assert client.post("/segment", content=PNG).status_code == 200
        with client.app.state.tessera.runtime.admission.ticket() as other:
            other.set_megapixels(0.008)
            assert client.post("/segment", content=PNG).status_code == 200  # its answer shows no pixel
            assert "megapixels" in problem(client.post("/segment?format=overlay", content=PNG), 503)
            assert "megapixels" in problem(client.post("/segment?crf=fast", content=PNG), 503)
        assert client.post("/segment?format=overlay", content=PNG).status_code == 200


def test_a_kept_answer_does_not_hold_its_batch_in_memory(serve: Any) -> None:
    engine = Slow()
    with serve(lambda bundle: engine, max_batch_size=4) as client:
        state = client.app.state.tessera
        engine.go.clear()
        engine.started.clear()
        with ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(client.post, "/segment", content=gray(0))]
            assert engine.started.wait(20)
            answers += [pool.submit(client.post, "/segment", content=gray(i)) for i in range(1, 5)]
            wait_until(lambda: state.registry.served[0].batcher.waiting == 4)
            engine.go.set()
            assert all(answer.result().status_code == 200 for answer in answers)
        assert 'tessera_batch_images_bucket{le="2.0"} 1.0' in client.get("/metrics").text  # the first, alone
        kept = list(state.runtime.network_outputs._kept.values())
        assert len(kept) == 5
        for output in kept:
            for array in (output.scores, output.code):
                assert array.base is None or array.base.nbytes == array.nbytes


def test_two_images_are_decoded_at_the_same_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def decode_together(data: bytes, **options: Any) -> Any:
        encoded = inspect(data, **options)

        def decode() -> Decoded:
            both.wait(20)
            return encoded.decode()

        return encoded._replace(decode=decode)

    with serve(workers=2) as client, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(task, "inspect", decode_together)
        answers = [pool.submit(client.post, "/segment", content=gray(i)) for i in range(2)]
        assert [answer.result().status_code for answer in answers] == [200, 200]


# ---- what of a file is shown


def test_a_pyramid_is_read_at_the_level_that_suffices_and_answered_at_its_full_size(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = np.repeat(np.repeat(PHOTO[::2, ::2], 2, 0), 2, 1)  # what the full size looks like, had it no more in it

    def show(data: bytes, choice: Choice) -> Decoded:
        if choice.enough is not None:
            assert choice.enough((240, 400)) == fitted_size((240, 400), spec)
            return Decoded(level, np.arange(100) >= np.full((60, 1), 50), (240, 400))
        assert choice.level in (0, 1)
        return Decoded(np.repeat(np.repeat(level, 4, 0), 4, 1))

    chosen = files_show(monkeypatch, show)
    with serve() as client:
        spec = client.app.state.tessera.registry.served[0].bundle.manifest.input
        answer = client.post("/segment", content=PNG).json()
        assert (answer["width"], answer["height"], answer["valid_fraction"]) == (400, 240, 0.5)
        kept = labels(client.post("/segment?format=npy&nodata=keep", content=PNG))
        assert ((kept == 255) == (np.arange(400) < 200)).all()
        assert [c.level for c in chosen] == [None]
        for more in ("format=overlay", "crf=true&crf_size=source", "crf=fast&crf_size=source"):
            assert client.post(f"/segment?{more}", content=PNG).status_code == 200
            assert chosen[-1].level == 0
        assert client.post("/segment?crf=fast", content=PNG).status_code == 200
        assert chosen[-1].level is None  # at the network's size the network's pixels do
        for pyramid, number in (("full", 0), ("1", 1)):
            assert client.post(f"/segment?pyramid={pyramid}", content=PNG).json()["valid_fraction"] == 1
            assert (chosen[-1].level, chosen[-1].enough) == (number, None)


def test_a_level_s_overlay_shows_the_labels_of_the_level(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees the same pixels for every format, in the cache or not."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)

    def show(data: bytes, choice: Choice) -> Decoded:
        return Decoded(PHOTO, size=(120, 200)) if choice.enough else Decoded(noise)

    files_show(monkeypatch, show)
    for cache_bytes in (0, 2**20):
        with serve(cache_bytes=cache_bytes) as client:
            assert client.post("/segment?format=overlay", content=PNG).status_code == 200
            seen = metric(client, 'tessera_cluster_pixels_total{cluster="0"')
            assert (labels(client.post("/segment?format=npy", content=PNG)) == 0).sum() == seen > 0


def test_bands_are_the_request_s_else_the_bundle_s_else_the_file_s(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(data: bytes, choice: Choice) -> Decoded:
        if choice.bands and max(choice.bands) > 4:
            raise NoSuchPart(f"bands: this image has 4, there is no {max(choice.bands)}")
        return Decoded(PHOTO[..., [band - 1 for band in choice.bands]] if choice.bands else PHOTO)

    chosen = files_show(monkeypatch, show)
    with serve() as client:
        bundle = client.app.state.tessera.registry.served[0].bundle
        plain = labels(client.post("/segment?format=npy", content=PNG))
        swapped = labels(client.post("/segment?format=npy&bands=3,2,1", content=PNG))
        assert [c.bands for c in chosen] == [None, (3, 2, 1)]
        assert (plain[:, 5] == 0).all()
        assert (swapped[:, 5] == 2).all()
        assert "no 5" in problem(client.post("/segment?bands=5", content=PNG), 422)
        spec = bundle.manifest.input.model_copy(update={"bands": (3, 2, 1)})
        object.__setattr__(bundle, "manifest", bundle.manifest.model_copy(update={"input": spec}))
        client.app.state.tessera.runtime.network_outputs._kept.clear()
        assert (labels(client.post("/segment?format=npy", content=PNG)) == swapped).all()
        assert (labels(client.post("/segment?format=npy&bands=1,2,3", content=PNG)) == plain).all()


def test_bands_of_the_bundle_that_an_image_lacks_are_said_to_be_the_bundle_s(serve: Any) -> None:
    with serve() as client:
        bundle = client.app.state.tessera.registry.served[0].bundle
        spec = bundle.manifest.input.model_copy(update={"bands": (5,)})
        object.__setattr__(bundle, "manifest", bundle.manifest.model_copy(update={"input": spec}))
        assert "trained on these bands" in problem(client.post("/segment", content=PNG), 422)
        assert "trained" not in problem(client.post("/segment?bands=7", content=PNG), 422)
        assert client.post("/segment?bands=1", content=PNG).status_code == 200


# ---- large images


def large(monkeypatch: pytest.MonkeyPatch, go: threading.Event, working_bytes: int = 100 * 2**20) -> list[bytes]:
    """Gray images of brightness 0 to 9 are small, and their decoders quick; others' work holds so much until `go`."""
    begun: list[bytes] = []

    def inspect_large(data: bytes, **options: Any) -> Any:
        encoded = inspect(data, **options)
        if data in SMALL:
            return encoded

        def decode() -> Decoded:
            begun.append(data)
            assert go.wait(20)
            return encoded.decode()

        return encoded._replace(working_bytes=working_bytes, decode=decode)

    monkeypatch.setattr(task, "inspect", inspect_large)
    return begun


def test_small_images_do_not_wait_behind_large_ones(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    begun = large(monkeypatch, go)
    with serve(workers=1) as client, ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(client.post, "/segment", content=gray(i)) for i in (100, 101, 102)]
        runtime = client.app.state.tessera.runtime
        wait_until(lambda: len(begun) == runtime.large.threads and runtime.admission.working_bytes == 300 * 2**20)
        assert client.post("/segment", content=SMALL[0]).status_code == 200
        assert client.post("/segment?format=overlay", content=SMALL[1]).status_code == 200
        go.set()
        assert [answer.result().status_code for answer in slow] == [200, 200, 200]
        assert runtime.admission.working_bytes == 0


def test_working_bytes_that_do_not_fit_are_refused_and_alone_any_fits(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    begun = large(monkeypatch, go)
    with serve(max_working_bytes=90 * 2**20) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/segment", content=gray(100))
        wait_until(lambda: len(begun) == 1)
        refused = client.post("/segment", content=gray(101))
        assert "the 100 MiB of this one do not fit" in problem(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert 'tessera_refused_total{reason="memory_full"} 1.0' in client.get("/metrics").text
        assert client.post("/segment", content=SMALL[0]).status_code == 200
        go.set()
        assert first.result().status_code == 200
        assert client.post("/segment", content=gray(101)).status_code == 200


def test_a_large_image_from_the_cache_is_decoded_in_its_own_lane(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    go.set()
    begun = large(monkeypatch, go)
    photo = gray(100)
    with serve(workers=1) as client, ThreadPoolExecutor(3) as pool:
        runtime = client.app.state.tessera.runtime
        assert client.post("/segment", content=photo).status_code == 200
        assert client.post("/segment?format=npy", content=photo).status_code == 200
        assert len(begun) == 1
        for number, more in enumerate(("format=overlay", "crf=fast", "crf=true&crf_size=source"), start=2):
            go.clear()
            answer = pool.submit(client.post, f"/segment?{more}", content=photo)
            wait_until(lambda number=number: len(begun) == number)
            assert runtime.admission.working_bytes == 100 * 2**20
            assert client.post("/segment", content=SMALL[0]).status_code == 200
            go.set()
            assert answer.result().status_code == 200
        assert len(begun) == 4
        assert runtime.admission.working_bytes == 0


def test_no_image_s_pixels_stay_until_the_request_s_last_one(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    made = task.ImageTask.__init__

    def remember(self: Any, *given: Any) -> None:
        made(self, *given)
        seen.append(self)

    monkeypatch.setattr(task.ImageTask, "__init__", remember)
    files = [("image", (str(i), gray(i))) for i in range(12)]
    with serve() as client:
        assert client.post("/segment?crf=fast&crf_size=source", files=files).status_code == 200
    assert len(seen) == 12
    assert all(each._photo is each._fitted is each._decoded is each._encoded is None for each in seen)


# ---- what no header bounds


SLOW = bmp_runs(3000)  # some seconds in Pillow


def test_other_formats_are_read_in_processes_and_answered_alike(serve: Any) -> None:
    with serve() as client:
        want = client.post("/segment?format=npy", content=PNG).content
        decoders = client.app.state.tessera.runtime.decoders
        assert not decoders._all  # nothing is started for a PNG
        for data in (tiff(PHOTO), packed(PHOTO, "BMP")):
            for more in ("", "&crf=fast"):
                shown = client.post(f"/segment?format=npy{more}", content=data)
                assert shown.content == client.post(f"/segment?format=npy{more}", content=PNG).content
                assert more or shown.content == want
            overlay = client.post("/segment?format=overlay", content=data)
            assert overlay.content == client.post("/segment?format=overlay", content=PNG).content
        assert len(decoders._all) == 1
    assert not any(process.alive for process in decoders._all)


@pytest.mark.slow
def test_small_photos_do_not_wait_for_one_that_takes_long_and_its_time_ends_it(serve: Any) -> None:
    slower = bmp_runs(3900)  # longer than its four seconds on any machine
    with serve(workers=1) as client, ThreadPoolExecutor(3) as pool:
        runtime = client.app.state.tessera.runtime
        slow = [pool.submit(client.post, "/segment?timeout_ms=4000", content=slower + bytes(n)) for n in range(3)]
        wait_until(lambda: runtime.decoding.running == runtime.decoding.threads)
        for photo in SMALL[:4]:
            assert client.post("/segment", content=photo).status_code == 200
        assert runtime.decoding.running == runtime.decoding.threads
        assert {answer.result().status_code for answer in slow} == {504}
        wait_until(lambda: not runtime.decoding.running and not runtime.decoders._all, 1)
        assert runtime.admission.working_bytes == 0
        assert client.post("/segment", content=tiff(PHOTO)).status_code == 200


def test_who_waits_along_is_answered_though_the_first_one_left(serve: Any) -> None:
    """What is shared goes on until the time of whoever began it."""
    with serve() as client, ThreadPoolExecutor(2) as pool:
        runtime, file = client.app.state.tessera.runtime, bmp_runs(500)
        first = pool.submit(client.post, "/segment?timeout_ms=200", content=file)
        wait_until(lambda: runtime.decoding.running == 1)
        second = pool.submit(client.post, "/segment", content=file)
        assert first.result().status_code == 504
        assert second.result().status_code == 200


def test_work_of_a_cancelled_request_is_told_to_end(serve: Any) -> None:
    with serve() as client:
        runtime, served = client.app.state.tessera.runtime, client.app.state.tessera.registry.served[0]
        begun = threading.Event()

        async def ask() -> ImageTask[Any]:
            image = ImageTask(PNG, Options(), served, runtime, "", math.inf)

            def work() -> None:
                begun.set()
                while True:
                    image.until.check()
                    time.sleep(0.001)

            asked = asyncio.create_task(image.run(work))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            return image

        asyncio.run(ask())
        wait_until(lambda: not runtime.workers.running, 1)


def test_a_crf_whose_client_left_stops() -> None:
    until = Deadline()
    until.cancel()
    with pytest.raises(DeadlineExceeded, match="allow more, or ask for less"):
        dense.refine(np.full((3, 8, 8), 1 / 3, np.float32), PHOTO[:8, :8], deadline=until)
