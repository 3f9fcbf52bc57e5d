"""Loading and unloading over HTTP: who may, what from, and what is said of it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.inference import Prediction
from models.io.encode import encode
from tests.service.answers import labels, problem
from tests.service.fakes import FakeEngine
from tests.service.variants import variant
from tests.tiny import bands

PNG = encode(bands(), "png")
ADMIN = {"X-API-Key": "open sesame"}


@pytest.fixture
def shelf(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A folder of bundles: `newer` than tiny; `turned`, with other ids too; `other`, of another name; `spoiled`."""
    bundle, home = Bundle.load(tiny_bundle), tmp_path / "models"
    variant(bundle, home / "turned", order=[3, 0, 4, 1, 2])
    variant(bundle, home / "newer", notice="newer")
    variant(bundle, home / "other", name="other")
    variant(bundle, home / "spoiled", notice="to be damaged")
    (home / "spoiled" / "NOTICE").write_text("damaged")
    return home


@pytest.fixture
def start(serve: Any, shelf: Path) -> Callable[..., Any]:
    """`with start() as client`: a server that may load from the shelf."""

    def started(*encoder: Any, **settings: Any) -> Any:
        given = {"models": shelf, "admin_key": "open sesame", "engine": "onnxruntime", **settings}
        return serve(*encoder, **given)

    return started


def rows(client: TestClient) -> list[tuple[str, str, bool]]:
    return [(m["name"], m["state"], m["default"]) for m in client.get("/models").json()["models"]]


def settle(client: TestClient) -> None:
    deadline = time.monotonic() + 10
    while any(state == "leaving" for _, state, _ in rows(client)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_swap_keeps_names_and_answers(start: Callable[..., Any]) -> None:
    with start() as client:
        old = client.get("/models/tiny").json()["digest"]
        before = labels(client.post("/segment?format=npy", content=PNG))
        client.patch("/clusters/1", json={"name": "grass", "color": "#00ff00"})
        client.patch("/clusters/2", json={"merged_into": 1})
        answer = client.post("/models/turned/load", headers=ADMIN)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["model"]["name"], body["model"]["default"], body["unchanged"]) == ("tiny", True, False)
        assert body["replaced"] == f"tiny@{old}"
        assert answer.headers["x-model"] == f"tiny@{body['model']['digest']}" != body["replaced"]
        assert body["followed"]["by"] == "centroids"
        assert {(c["old"], c["new"]) for c in body["followed"]["carried"]} == {(1, 3), (2, 4)}
        shown = client.get("/clusters").json()["clusters"]
        assert [c["name"] for c in shown] == ["white", "red", "black", "grass", "blue"]
        assert (shown[3]["color"], shown[4]["merged_into"]) == ("#00ff00", 3)
        after = labels(client.post("/segment?format=npy", content=PNG))
        np.testing.assert_array_equal(after, np.array([1, 3, 3, 0, 2])[before])
        settle(client)
        assert rows(client) == [("tiny", "ready", True)]
        assert problem(client.get(f"/models/tiny@{old}"), 404)


def test_the_same_bundle_again_is_said_to_be_there(start: Callable[..., Any]) -> None:
    with start() as client:
        first = client.post("/models/turned/load", headers=ADMIN).json()
        again = client.post("/models/turned/load", headers=ADMIN).json()
        assert (first["unchanged"], again["unchanged"], again["replaced"]) == (False, True, None)
        assert again["model"] == first["model"]


def test_a_second_model_comes_and_goes(start: Callable[..., Any]) -> None:
    with start() as client:
        assert client.post("/models/other/load", headers=ADMIN).status_code == 200
        assert rows(client) == [("tiny", "ready", True), ("other", "ready", False)]
        assert client.post("/segment?model=other", content=PNG).json()["model"] == "other"
        client.post("/models/other/load", headers=ADMIN, json={"default": True})
        assert client.post("/segment", content=PNG).json()["model"] == "other"
        body = client.post("/models/other/unload", headers=ADMIN).json()
        assert body["unloaded"].startswith("other@")
        assert (body["finishing"], body["default"][:5]) == (0, "tiny@")
        settle(client)
        assert rows(client) == [("tiny", "ready", True)]
        assert "only model" in problem(client.post("/models/tiny/unload", headers=ADMIN), 409)
        problem(client.post("/models/other/unload", headers=ADMIN), 404)
        assert 'name="other"' not in client.get("/metrics").text


def test_a_bad_bundle_changes_nothing_and_is_shown(start: Callable[..., Any]) -> None:
    with start() as client:
        before = client.get("/models/tiny").json()
        assert "NOTICE" in problem(client.post("/models/spoiled/load", headers=ADMIN), 422)
        assert rows(client) == [("tiny", "ready", True), ("spoiled", "failed", False)]
        assert "NOTICE" in client.get("/models/spoiled").json()["reason"]
        assert client.get("/models/tiny").json() == before
        assert client.get("/readyz").status_code == 200
        assert client.get("/healthz").json()["models"][1]["state"] == "failed"


def test_no_room_is_a_409_with_numbers(start: Callable[..., Any]) -> None:
    with start(max_model_bytes=24 * 2**20) as client:
        said = problem(client.post("/models/other/load", headers=ADMIN), 409)
        assert "24 MB" in said
        assert "TESSERA_MAX_MODEL_BYTES" in said


@pytest.mark.parametrize("what", ["turned/load", "tiny/unload"])
def test_only_an_admin_may(start: Callable[..., Any], what: str) -> None:
    with start(keys="ann=her key") as client:
        problem(client.post(f"/models/{what}"), 401)
        problem(client.post(f"/models/{what}", headers={"X-API-Key": "guess"}), 401)
        assert "TESSERA_ADMIN_KEY" in problem(client.post(f"/models/{what}", headers={"X-API-Key": "her key"}), 403)
    with start(admin_key="") as client:
        assert "TESSERA_ADMIN_KEY" in problem(client.post(f"/models/{what}", headers=ADMIN), 403)


def test_without_a_folder_nothing_is_loaded(start: Callable[..., Any], tmp_path: Path) -> None:
    with start(models=None) as client:
        assert "TESSERA_MODELS" in problem(client.post("/models/turned/load", headers=ADMIN), 403)
    with start(models=tmp_path / "gone") as client:
        assert "TESSERA_MODELS" in problem(client.post("/models/turned/load", headers=ADMIN), 404)


def test_a_name_leads_nowhere_else(start: Callable[..., Any], shelf: Path, tiny_bundle: Path) -> None:
    (shelf / "away").symlink_to(tiny_bundle)
    (shelf / "file").write_text("no folder")
    no_name = ("%2e%2e", "..%5c..%5cetc", ".hidden", "%00", "a%00b", "a" * 64, "t%C3%BCrned", "%20")
    not_there = ("absent", "away", "file", "..", "..%2f..%2fetc", "%2fetc")  # the last three are no route
    with start() as client:
        for name in no_name:
            assert "letters" in problem(client.post(f"/models/{name}/load", headers=ADMIN), 422)
        for name in not_there:
            problem(client.post(f"/models/{name}/load", headers=ADMIN), 404)
        assert rows(client) == [("tiny", "ready", True)]


def test_a_link_within_the_folder_is_followed(start: Callable[..., Any], shelf: Path) -> None:
    (shelf / "current").symlink_to("turned")
    with start() as client:
        assert client.post("/models/current/load", headers=ADMIN).json()["replaced"]


def test_a_near_name_is_offered(start: Callable[..., Any]) -> None:
    with start() as client:
        assert "did you mean 'turned'" in problem(client.post("/models/turnd/load", headers=ADMIN), 404)
        assert "newer, other, spoiled, turned" in problem(client.post("/models/zzz/load", headers=ADMIN), 404)


def test_a_bad_body_is_told_what_to_change(start: Callable[..., Any]) -> None:
    bad: list[tuple[dict[str, Any], int, str]] = [
        ({"content": b"{"}, 400, "JSON"),
        ({"json": []}, 422, "body"),
        ({"json": {"defalt": True}}, 422, "did you mean 'default'"),
        ({"json": {"default": 7}}, 422, "default"),
        ({"json": {"default": "yes"}}, 422, "default"),
        ({"content": b'{"default": true, "default": false}'}, 422, "given twice"),
        ({"content": bytes(70_000)}, 413, "64 KiB"),
    ]
    with start() as client:
        for send, status, says in bad:
            assert says in problem(client.post("/models/turned/load", headers=ADMIN, **send), status)


def test_a_model_says_what_runs_it(start: Callable[..., Any]) -> None:
    with start() as client:
        model = client.get("/models/tiny").json()
        assert (model["engine"], model["provider"], model["drift"]) == ("onnxruntime", "cpu", None)
        assert 2**20 < model["memory_bytes"] < 2**30
        assert [64, 64] in model["warm_shapes"]
        (brief,) = client.get("/healthz").json()["models"]
        assert {key: model[key] for key in brief} == brief


def test_a_load_is_shown_and_probes_and_answers_go_on(start: Callable[..., Any], tiny_bundle: Path) -> None:
    gate = threading.Event()
    old = Bundle.load(tiny_bundle).digest

    class Turned(FakeEngine):
        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            scores, codes = super().__call__(pixels, code=code)
            return Prediction(scores[:, [3, 0, 4, 1, 2]], codes)

    def opens(bundle: Bundle) -> Any:
        if bundle.digest == old:
            return FakeEngine()
        assert gate.wait(20)
        return Turned()

    with start(opens) as client:
        answers: list[Any] = []
        loading = threading.Thread(target=lambda: answers.append(client.post("/models/turned/load", headers=ADMIN)))
        loading.start()
        deadline = time.monotonic() + 10
        while ("turned", "loading", False) not in rows(client):
            assert time.monotonic() < deadline
        assert client.get("/models/turned").json()["state"] == "loading"
        assert client.get("/readyz").status_code == 200
        assert labels(client.post("/segment?format=npy", content=PNG))[0, 0] == 0
        gate.set()
        loading.join()
        assert answers[0].status_code == 200
        assert labels(client.post("/segment?format=npy", content=PNG))[0, 0] == 1
        settle(client)
        assert rows(client) == [("tiny", "ready", True)]


def test_what_runs_and_what_waits_on_the_old_one_is_answered_by_it(
    start: Callable[..., Any], tiny_bundle: Path
) -> None:
    gate, old = threading.Event(), Bundle.load(tiny_bundle)

    class Engine(FakeEngine):
        slow = False

        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            assert not self.closed
            assert not self.slow or gate.wait(20)
            return super().__call__(pixels, code=code)

    first = Engine()
    # As on a GPU: while the old network is busy, the new one need not wait for the processor.
    first.provider = "elsewhere"

    def photos(of: Any) -> list[Any]:
        return [encode(bands(60, 100 + i), "png") for i in range(of)]

    with start(lambda bundle: first if bundle.digest == old.digest else Engine(), cache_bytes=0) as client:
        first.slow = True
        answers: list[Any] = []
        asking = [
            threading.Thread(target=lambda photo=photo: answers.append(client.post("/segment", content=photo)))
            for photo in photos(3)
        ]
        several = [("image", photo) for photo in photos(6)]  # four at once: two have not begun
        asking.append(threading.Thread(target=lambda: answers.append(client.post("/segment", files=several))))
        for thread in asking:
            thread.start()
        batcher = client.app.state.tessera.registry.served[0].batcher
        deadline = time.monotonic() + 10
        while batcher.waiting + batcher.running < 7:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert client.post("/models/newer/load", headers=ADMIN).status_code == 200
        assert ("tiny", "leaving", False) in rows(client)
        assert client.post("/segment", content=PNG).headers["x-model"] != old.ref
        assert not first.closed
        gate.set()
        for thread in asking:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 4
        assert {answer.headers["x-model"] for answer in answers} == {old.ref}
        settle(client)
        assert first.closed


def test_while_draining_nothing_is_loaded(start: Callable[..., Any]) -> None:
    with start() as client:
        client.app.state.tessera.drain()
        assert problem(client.post("/models/turned/load", headers=ADMIN), 503)
