"""One image's way: what it may hold, and what is kept of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models.io.decode import decode
from models.io.encode import encode
from service.inference import task
from tests.service.answers import PNG, problem
from tests.service.fakes import Slow, wait_until


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
        both.wait(20)
        return decode(data, **options)

    with serve(workers=2) as client, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(task, "decode", decode_together)
        answers = [pool.submit(client.post, "/segment", content=gray(i)) for i in range(2)]
        assert [answer.result().status_code for answer in answers] == [200, 200]


def gray(brightness: int) -> bytes:
    return encode(np.full((64, 64, 3), brightness, np.uint8), "png")
