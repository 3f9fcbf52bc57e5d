"""crf=true, crf=fast, crf_size: in time or, said so, without."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from models import refine as refinement
from models.crf import reference
from models.crf.params import PUBLISHED, CRFParams
from models.deadline import Deadline, DeadlineExceeded
from models.io.encode import encode
from models.manifest import CodeSpec
from models.preprocess import InputSpec, fit
from service.inference.options import Options
from service.refiners.process_pool import ProcessLost, ProcessPoolRefiner
from tests.service.answers import labels, problem
from tests.tiny import MeanColor, bands

NOISY = np.clip(bands(60, 100).astype(int) + np.random.default_rng(0).integers(-40, 40, (60, 100, 3)), 0, 255)
PNG = encode(NOISY.astype(np.uint8), "png")


def expected(**how: Any) -> Any:
    photo = NOISY.astype(np.uint8)
    fitted = fit(photo, InputSpec(size=(64, 64), resize="short_side", multiple=8, max_side_px=512))
    encoded = MeanColor()(fitted.pixels[None], code=True)
    assert encoded.code is not None
    spec = CodeSpec(dim=3, stride=8, assignment="cosine", temperature=2.0)
    return refinement.refine(encoded.scores[0], encoded.code[0], fitted, spec, photo=photo, **how)


@pytest.mark.parametrize(
    ("query", "how"),
    [
        ("crf=true", {}),
        ("crf=true&crf_size=source", {"resolution": "source"}),
        ("crf=fast", {"method": "fast"}),
        ("crf=fast&crf_size=source", {"method": "fast", "resolution": "source"}),
        ("crf=true&crf_iterations=3&crf_bilateral_srgb=9", {"params": CRFParams(iterations=3, bilateral_srgb=9)}),
    ],
)
def test_each_way_is_the_one_of_models(client: Any, query: str, how: dict[str, Any]) -> None:
    answer = client.post(f"/segment?format=npy&{query}", content=PNG)
    agree = (labels(answer) == expected(**how)).mean()
    assert agree > 0.999
    assert "x-warning" not in answer.headers
    assert "crf;dur=0.00" not in answer.headers["server-timing"]


@pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")
def test_the_operator_may_have_pydensecrf_answer(serve: Any) -> None:
    with serve(crf="pydensecrf", workers=1) as client:
        for query, how in (
            ("", {}),
            ("&crf_size=source", {"resolution": "source"}),
            ("&crf_iterations=3", {"params": CRFParams(iterations=3)}),
        ):
            answer = client.post(f"/segment?format=npy&crf=true{query}", content=PNG)
            assert (labels(answer) == expected(method="pydensecrf", **how)).all()
            assert "x-warning" not in answer.headers
            assert "crf;dur=0.00" not in answer.headers["server-timing"]
        assert client.post("/segment?crf=true", content=PNG).json()["refined"] is True
        answer = client.post("/segment?format=npy&crf=fast", content=PNG)
        assert (labels(answer) == expected(method="fast")).all()


def test_a_request_has_the_published_numbers_but_for_those_it_chooses() -> None:
    assert Options().crf_params == PUBLISHED
    chosen = {
        "iterations": 3,
        "gaussian_compat": 1.0,
        "bilateral_sxy": 50.0,
        "bilateral_srgb": 9.0,
        "bilateral_compat": 2.0,
    }
    assert Options(**{f"crf_{name}": value for name, value in chosen.items()}).crf_params == CRFParams(**chosen)


class Dying:
    """Processes that die of every image."""

    def refine(self, *args: Any, **more: Any) -> Any:
        raise ProcessLost("a process of the CRF has died (exit code -9)")

    def close(self) -> None:
        """There is none."""


def test_what_no_process_survives_ours_refines(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ProcessPoolRefiner, "open", lambda settings, count: Dying())
    with serve() as client:
        answer = client.post("/segment?format=npy&crf=true", content=PNG)
        assert (labels(answer) == expected()).mean() > 0.999
        assert "x-warning" not in answer.headers
        assert "exit code -9); ours refines this image" in caplog.text


def slow(*args: Any, deadline: Deadline, **more: Any) -> Any:
    """A CRF that needs longer than it has."""
    time.sleep(max(0.0, deadline.at - time.monotonic()))
    raise DeadlineExceeded("too late")


def test_rather_unrefined_than_late(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "refine", slow)
    with serve(crf_timeout_s=0.2) as client:
        plain = labels(client.post("/segment?format=npy", content=PNG))
        answer = client.post("/segment?format=npy&crf=true", content=PNG)
        assert (labels(answer) == plain).all()
        assert "TESSERA_CRF_TIMEOUT_S" in answer.headers["x-warning"]
        told = client.post("/segment?crf=true", content=PNG).json()
        assert told["refined"] is False
        assert "use crf=fast" in told["warnings"][0]
        assert "x-warning" not in client.post("/segment?crf=true", content=PNG).headers
        told = client.post("/segment?crf=fast", content=PNG).json()
        assert not told["refined"]
        assert "use " not in told["warnings"][0]  # nothing costs less
        told = client.post("/segment?crf=true&crf_size=source", content=PNG).json()
        assert "use crf_size=input" in told["warnings"][0]
        assert "tessera_unrefined_total 5.0" in client.get("/metrics").text


def test_the_requests_own_time_bounds_it_too(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "refine", slow)
    with serve() as client:
        client.post("/segment?format=npy", content=PNG)
        answer = client.post("/segment?format=npy&crf=true&timeout_ms=1500", content=PNG)
        assert answer.status_code == 200  # later it would be a 504
        assert "x-warning" in answer.headers


def test_parameters_that_do_not_go_with_the_image_are_named(client: Any) -> None:
    assert "crf" in problem(client.post("/segment?crf=true&crf_size=photo", content=PNG), 422)
    assert "crf" in problem(client.post("/segment?crf=slow", content=PNG), 422)


class Stuck:
    """A device that takes images and never answers."""

    alive = True

    async def refine(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(60)


def test_a_device_that_does_not_answer_in_time_is_not_waited_for(serve: Any) -> None:
    with serve(crf_timeout_s=0.2) as client:
        client.app.state.tessera.runtime.gpu = Stuck()
        told = client.post("/segment?crf=true", content=PNG).json()
        assert told["refined"] is False
        assert "TESSERA_CRF_TIMEOUT_S" in told["warnings"][0]
        client.app.state.tessera.runtime.gpu = None
