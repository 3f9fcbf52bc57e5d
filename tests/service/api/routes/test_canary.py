"""A canary: who gets it, what is told of its agreement, that its failures are nobody's, and its end by one call."""

import asyncio
import base64
import io
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.inference import Prediction
from models.io.encode import encode
from service.app import create_app
from service.fleet.fleet import Call, Fleet, Reply, reply_of
from service.fleet.page import create
from service.fleet.unix_fleet import UnixFleet
from service.inference import comparison
from service.repository import canary as canary_module
from service.repository.canary import FAILURES
from service.repository.change_store import Kept
from service.settings import Settings
from tests.service.answers import PNG, labels, problem
from tests.service.fakes import FakeEngine, wait_until
from tests.service.variants import coarser, variant

ADMIN = {"X-API-Key": "open sesame"}


class Colors(FakeEngine):
    """A bundle's own network, in numpy: nothing is proved, nothing measured."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self._centroids = bundle.centroids

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        means = super().__call__(pixels, code=True).code
        return Prediction(np.einsum("kd,bdhw->bkhw", self._centroids, means), means if code else None)


@pytest.fixture(scope="module")
def shelf(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles: `newer` than tiny; `turned`, with other ids; `coarse`, of three clusters and another size;
    `other`, the same of another name; `spoiled`."""
    of, home = Bundle.load(tiny_bundle), tmp_path_factory.mktemp("models")
    variant(of, home / "newer", notice="newer")
    variant(of, home / "turned", order=[3, 0, 4, 1, 2])
    coarser(of, home / "coarse", keep=[2, 0, 3])
    coarser(of, home / "other", keep=[2, 0, 3], name="other")
    variant(of, home / "spoiled", notice="to be damaged")
    (home / "spoiled" / "NOTICE").write_text("damaged")
    return home


@pytest.fixture
def start(serve: Any, shelf: Path) -> Callable[..., Any]:
    def started(engine: Callable[[Bundle], Any] = Colors, **settings: Any) -> Any:
        return serve(engine, **{"models": shelf, "admin_key": "open sesame", **settings})

    return started


def begin(client: TestClient, folder: str = "newer", share: float = 100) -> str:
    """The ref of a canary that takes this share from now on."""
    answer = client.post(f"/models/{folder}/canary", headers=ADMIN, json={"share": share})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["canary"])


def report(client: TestClient) -> dict[str, Any]:
    answer = client.get("/models/canary")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def compared(client: TestClient, count: int) -> dict[str, Any]:
    """The report once so many images were compared."""
    wait_until(lambda: report(client)["compared"] >= count)
    return report(client)


def photos(count: int, seed: int = 0) -> Iterator[bytes]:
    """Pictures of patches of any color and size, some with holes, some as JPEG."""
    rng = np.random.default_rng(seed)
    for n in range(count):
        height, width = (int(side) for side in rng.integers(40, 150, 2))
        cell = int(rng.integers(5, 30))
        small = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        pixels = small.repeat(cell, 0).repeat(cell, 1)[:height, :width]
        if n % 3 == 0:
            pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
            pixels[: height // 3, : width // 2, 3] = 0
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG" if n % 3 == 1 else "PNG", **({"quality": 95} if n % 3 == 1 else {}))
        yield file.getvalue()


def ids(client: TestClient, image: bytes, model: str) -> Any:
    """The label map of an explicitly named model, 255 where the image holds no data."""
    answer = client.post(f"/segment?format=png&palette=false&nodata=keep&model={model}", content=image)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


# Whose turn it is


def test_who_names_no_model_is_answered_by_the_canary_and_told_so(start: Callable[..., Any]) -> None:
    with start() as client:
        default = client.post("/segment", content=PNG).json()
        ref = begin(client, "turned")
        answer = client.post("/segment", content=PNG)
        said = answer.json()
        assert answer.headers["x-model"] == f"{said['model']}@{said['digest']}" == ref
        assert said["digest"] != default["digest"]
        wide = labels(client.post("/segment?format=npy&k=4", content=PNG))
        assert len(np.unique(wide)) == 4
        hf = client.post("/hf", content=PNG)
        assert hf.headers["x-model"] == ref
        assert {one["label"] for one in hf.json()} == {"red", "green", "blue", "white", "black"}
        assert client.post("/similar?x=5&y=5", content=PNG).headers["x-model"] == ref
        several = client.post("/segment", json={"images": [base64.b64encode(PNG).decode()] * 2}).json()["results"]
        assert [one["digest"] for one in several] == [said["digest"]] * 2
        assert report(client)["answered"] == {"default": 0, "canary": 6}


def test_who_names_a_model_or_its_clusters_or_asks_for_classes_is_never_redirected(start: Callable[..., Any]) -> None:
    with start() as client:
        before = client.get("/models/tiny").json()["digest"]
        ref = begin(client, "coarse")
        client.put("/classes/0", json={"name": "warm", "clusters": [0]})
        for query in ("model=tiny", f"model=tiny@{before}", "only=4", "classes=true"):
            assert client.post(f"/segment?format=npy&{query}", content=PNG).headers["x-model"] == f"tiny@{before}"
        assert client.post("/segment?format=npy&k=5", content=PNG).headers["x-model"] == f"tiny@{before}"
        assert "only" in problem(client.post("/segment?only=5", content=PNG), 422)
        assert "choose 2 to 5" in problem(client.post("/segment?k=6", content=PNG), 422)
        assert client.post(f"/segment?format=npy&model={ref}", content=PNG).headers["x-model"] == ref
        assert client.get("/clusters").json()["k"] == 5
        assert client.get(f"/clusters?model={ref}").json()["k"] == 3
        body = {
            "inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PNG).decode()]}]
        }
        oip = client.post("/v2/models/tiny/infer", json=body)
        assert oip.headers["x-model"] == f"tiny@{before}"
        found = report(client)
        assert (found["answered"], found["left"]) == ({"default": 3, "canary": 0}, 3)
        rows = client.get("/models").json()["models"]
        assert [(row["default"], row["canary"], row["k"]) for row in rows] == [(True, False, 5), (False, True, 3)]
        assert len(client.post("/v2/repository/index").json()) == 1


def test_an_image_that_cannot_be_read_is_told_as_ever(start: Callable[..., Any]) -> None:
    with start() as client:
        begin(client)
        assert "image" in problem(client.post("/segment", content=b"no image at all" * 9), 400)
        found = report(client)
        assert (found["failures"], found["state"]) == (0, "serving")


def test_one_image_has_one_model_and_the_share_is_what_was_said(start: Callable[..., Any]) -> None:
    with start() as client:
        ref = begin(client, share=30)
        images = [encode(np.full((8, 8, 3), (n, 40, 90), np.uint8), "png") for n in range(60)]
        first = [client.post("/segment?format=npy", content=image).headers["x-model"] == ref for image in images]
        again = [client.post("/segment?format=color", content=image).headers["x-model"] == ref for image in images]
        assert first == again
        assert 6 <= sum(first) <= 32  # 18 are meant; four times the deviation of 3.5
        assert client.patch("/models/canary", headers=ADMIN, json={"share": 60}).status_code == 200
        more = [client.post("/segment?format=npy", content=image).headers["x-model"] == ref for image in images]
        assert all(now for before, now in zip(first, more, strict=True) if before)
        assert sum(more) > sum(first)
        found = report(client)
        assert found["answered"]["canary"] == sum(first) + sum(again) + sum(more)
        assert sum(found["answered"].values()) == 180


# Agreement


def test_the_agreement_is_that_of_asking_both_for_every_image(start: Callable[..., Any]) -> None:
    images = list(photos(6))
    with start() as client:
        ref = begin(client, "coarse")
        for n, image in enumerate(images):  # one after the other: none is skipped
            assert client.post("/segment?format=overlay&alpha=0.3", content=image).headers["x-model"] == ref
            client.post("/segment?k=2", content=image)  # the same image again counts once
            compared(client, n + 1)
        found = compared(client, len(images))
        default = found["default"]
        wanted = np.zeros((5, 3), np.int64)
        held = 0
        for image in images:
            one, other = ids(client, image, default), ids(client, image, ref)
            np.testing.assert_array_equal(one == 255, other == 255)
            np.add.at(wanted, (one[one < 255], other[one < 255]), 1)
            held += int((one < 255).sum())
        assert found["table"] == wanted.tolist()
        agree = found["agreement"]
        assert agree["pixels"] == held < sum(ids(client, image, ref).size for image in images)
        assert agree["canary_read_as_default"] == wanted.max(axis=0).sum() / held
        assert agree["default_read_as_canary"] == wanted.max(axis=1).sum() / held
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(-wanted)
        assert agree["one_to_one"] == wanted[rows, columns].sum() / held
        assert {(one["default"], one["canary"], one["pixels"]) for one in agree["matched"]} == {
            (a, b, wanted[a, b]) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if wanted[a, b]
        }
        assert {one["canary_name"] for one in agree["matched"]} == {"blue", "red", "white"}
        assert 0 < agree["adjusted_rand"] < 1
        assert 0 < agree["normalized_mutual_information"] < 1
        assert (found["compared"], found["skipped"], found["failures"]) == (6, 0, 0)
        assert found["latency"]["canary"]["passes"] == found["latency"]["default"]["passes"] == 6
        assert 0 < found["margin"]["canary"] < 1
        text = client.get("/metrics").text
        assert 'tessera_canary_comparisons_total{outcome="compared"} 6.0' in text
        assert 'tessera_canary_answers_total{by="canary"} 12.0' in text
        assert "tessera_canary_share 100.0" in text
        assert 'tessera_canary_agreement{model="tiny"}' in text


def test_without_any_image_there_is_no_agreement_and_a_sentence(start: Callable[..., Any]) -> None:
    with start() as client:
        assert report(client)["state"] == "none"
        begin(client)
        found = report(client)
        assert (found["agreement"], found["state"], found["share"]) == (None, "serving", 100)
        assert "no image was compared yet" in found["note"]
        assert np.array(found["table"]).shape == (5, 5)
        red = encode(np.full((16, 16, 3), (230, 30, 30), np.uint8), "png")
        client.post("/segment", content=red)
        found = compared(client, 1)
        assert found["agreement"]["one_to_one"] == 1
        assert found["agreement"]["adjusted_rand"] is None
        assert "of one cluster in both" in found["note"]


def test_the_default_compares_only_while_nobody_asks_it(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held by who names it: comparisons wait behind that, and then are skipped."""
    monkeypatch.setattr(comparison, "_QUIET_S", 0.1)

    class Held(FakeEngine):
        provider = "of its own"  # those of the CPU take turns
        go, on = threading.Event(), threading.Event()

        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            if self.on.is_set():
                assert self.go.wait(20)
            return super().__call__(pixels, code=code)

    engines = iter([Held, FakeEngine])
    with start(lambda bundle: next(engines)()) as client:
        begin(client)
        Held.on.set()
        asking = threading.Thread(target=lambda: client.post("/segment?model=tiny", content=next(photos(1))))
        asking.start()
        wait_until(lambda: client.get("/healthz").json()["running"] == 1)
        for image in photos(12, seed=1):
            assert client.post("/segment?format=npy", content=image).status_code == 200
        found = report(client)
        assert found["answered"]["canary"] == 12
        assert found["compared"] == 0
        assert found["skipped"] + found["waiting"] == 12
        assert found["skipped"] >= 3  # no more than a few wait
        Held.go.set()
        asking.join()
        wait_until(lambda: report(client)["waiting"] == 0)
        found = report(client)
        assert found["compared"] + found["skipped"] == 12


# Failures


class Moody(FakeEngine):
    """Works until its mood is set."""

    mood: Callable[[Prediction], Prediction] | None = None

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        prediction = super().__call__(pixels, code=code)
        return prediction if self.mood is None else self.mood(prediction)


def raises(prediction: Prediction) -> Prediction:
    raise RuntimeError("the device is gone")


def nan(prediction: Prediction) -> Prediction:
    return Prediction(prediction.scores * np.float32(np.nan), prediction.code)


def dies(prediction: Prediction) -> Prediction:
    raise SystemExit(3)


@pytest.mark.parametrize(("mood", "why"), [(raises, "the device is gone"), (nan, "NaN"), (dies, "died")])
def test_a_canary_that_fails_is_nobodys_error_and_is_dropped(
    start: Callable[..., Any], mood: Callable[[Prediction], Prediction], why: str
) -> None:
    canary = Moody()
    engines = iter([FakeEngine(), canary])
    with start(lambda bundle: next(engines)) as client:
        default = client.get("/models").json()["models"][0]["digest"]
        begin(client)
        canary.mood = mood
        for image in photos(12):
            answer = client.post("/segment", content=image)
            assert (answer.status_code, answer.json()["digest"]) == (200, default)
            assert answer.headers["x-model"] == f"tiny@{default}"
        wait_until(lambda: report(client)["state"] == "dropped")
        found = report(client)
        assert why in found["reason"]
        assert 1 <= found["failures"] <= FAILURES
        assert found["answered"] == {"default": found["answered"]["default"], "canary": 0}
        wait_until(lambda: len(client.get("/models").json()["models"]) == 1)
        assert client.get("/readyz").status_code == 200
        assert "tessera_canary_share 0.0" in client.get("/metrics").text


def test_a_canary_that_hangs_costs_a_quarter_of_a_requests_time(start: Callable[..., Any]) -> None:
    canary, go = Moody(), threading.Event()
    engines = iter([FakeEngine(), canary])

    def hangs(prediction: Prediction) -> Prediction:
        assert go.wait(20)
        return prediction

    with start(lambda bundle: next(engines), timeout_s=2.0, engine_timeout_s=1.0) as client:
        begin(client)
        canary.mood = hangs
        began = time.monotonic()
        answer = client.post("/segment", content=PNG)
        assert answer.status_code == 200
        assert 0.4 <= time.monotonic() - began < 1.5
        assert report(client)["failures"] == 1
        wait_until(lambda: report(client)["state"] == "dropped")
        assert "did not come back" in report(client)["reason"]
        assert client.get("/readyz").status_code == 200
        go.set()


def test_a_failure_in_between_is_forgiven(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "FAILURES", 2)
    canary = Moody()
    engines = iter([FakeEngine(), canary])
    with start(lambda bundle: next(engines)) as client:
        ref = begin(client)
        for image in photos(4):
            canary.mood = raises
            client.post("/segment?format=npy", content=image)
            canary.mood = None
            assert client.post("/segment?format=npy", content=image).headers["x-model"] == ref
        found = report(client)
        assert (found["state"], found["failures"]) == ("serving", 4)


def test_a_canary_that_cannot_be_served_harms_nobody(start: Callable[..., Any], shelf: Path) -> None:
    with start(canary=shelf / "spoiled") as client:
        wait_until(lambda: report(client)["state"] == "failed")
        found = report(client)
        assert "NOTICE" in found["reason"]
        assert (found["agreement"], found["canary"], found["table"]) == (None, None, [])
        assert client.get("/readyz").status_code == 200
        assert client.post("/segment", content=PNG).status_code == 200
        assert "NOTICE" in problem(client.post("/models/spoiled/canary", headers=ADMIN), 422)
        begin(client)
        assert report(client)["state"] == "serving"


def test_it_starts_with_the_server(start: Callable[..., Any], shelf: Path) -> None:
    with start(canary=shelf / "newer", canary_share=100) as client:
        wait_until(lambda: report(client)["state"] == "serving")
        ref = report(client)["canary"]
        assert client.post("/segment?format=npy", content=PNG).headers["x-model"] == ref


# Names


def test_what_people_call_clusters_shows_at_the_canarys_and_is_kept_once_it_is_promoted(
    start: Callable[..., Any],
) -> None:
    with start() as client:
        client.patch("/clusters/1", json={"name": "grass", "color": "#00ff00"})
        ref = begin(client, "turned")

        def shown() -> list[str]:
            return [one["name"] for one in client.get(f"/clusters?model={ref}").json()["clusters"]]

        assert shown() == ["white", "red", "black", "grass", "blue"]
        present = client.post("/segment", content=PNG).json()
        assert {one["name"] for one in present["clusters"]} == {"white", "red", "black", "grass", "blue"}
        assert present["digest"] == ref[-12:]
        client.patch("/clusters/0", json={"name": "brick"})  # while it runs
        wait_until(lambda: shown()[1] == "brick")
        kept = client.app.state.tessera.registry._changes  # type: ignore[attr-defined]
        digest = client.app.state.tessera.registry.canary.bundle.digest  # type: ignore[attr-defined]
        assert client.portal is not None
        assert client.portal.call(kept.look, digest, Kept()).sequence == 0  # nothing is written of it
        assert client.get("/healthz").json()["names_kept"]
        body = client.post("/models/canary/promote", headers=ADMIN).json()
        assert {(one["old"], one["new"]) for one in body["followed"]["carried"]} == {(0, 1), (1, 3)}
        names = [one["name"] for one in client.get("/clusters").json()["clusters"]]
        assert names == ["white", "brick", "black", "grass", "blue"]
        assert client.portal.call(kept.look, digest, Kept()).sequence > 0
    with start(bundles=(start_folder(client, "turned"),)) as again:
        assert [one["name"] for one in again.get("/clusters").json()["clusters"]] == names


def start_folder(client: TestClient, name: str) -> Path:
    return Path(client.app.state.tessera.settings.models) / name  # type: ignore[attr-defined]


def test_names_of_a_dropped_canary_leave_nothing_behind(start: Callable[..., Any], shelf: Path) -> None:
    with start() as client:
        client.patch("/clusters/1", json={"name": "grass"})
        begin(client, "turned")
        client.post("/models/canary/drop", headers=ADMIN)
        client.patch("/clusters/1", json={"name": "meadow"})
        client.post("/models/turned/load", headers=ADMIN)
        assert client.get("/clusters/3").json()["name"] == "meadow"


def test_a_name_that_is_given_at_the_canary_is_its_own(start: Callable[..., Any]) -> None:
    with start() as client:
        client.patch("/clusters/1", json={"name": "grass"})
        ref = begin(client, "turned")
        etag = client.get(f"/clusters/3?model={ref}").headers["etag"]
        answer = client.patch(f"/clusters/3?model={ref}", json={"name": "lawn"}, headers={"If-Match": etag})
        assert answer.status_code == 200, answer.text
        assert client.get(f"/clusters/3?model={ref}").json()["name"] == "lawn"
        assert client.get("/clusters/1").json()["name"] == "grass"
        client.post("/models/canary/promote", headers=ADMIN)
        assert client.get("/clusters/3").json()["name"] == "lawn"  # the last word


# Its end


def test_it_is_promoted_by_one_call(start: Callable[..., Any]) -> None:
    with start() as client:
        old = client.get("/models/tiny").json()["digest"]
        assert "no canary" in problem(client.post("/models/canary/promote", headers=ADMIN), 404)
        ref = begin(client, share=5)
        answer = client.post("/models/canary/promote", headers=ADMIN)
        body = answer.json()
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model"] == ref
        assert (body["replaced"], body["unchanged"], body["model"]["default"]) == (f"tiny@{old}", False, True)
        assert "TESSERA_BUNDLES" in body["note"]
        assert client.post("/segment", content=PNG).json()["digest"] == ref[-12:]
        again = client.post("/models/canary/promote", headers=ADMIN).json()
        assert (again["unchanged"], again["replaced"]) == (True, None)
        assert report(client)["state"] == "promoted"
        wait_until(lambda: len(client.get("/models").json()["models"]) == 1)
        assert "no canary" in problem(client.post("/models/canary/drop", headers=ADMIN), 404)


def test_one_of_another_name_leaves_the_old_one_to_who_names_it(start: Callable[..., Any]) -> None:
    with start() as client:
        begin(client, "other")
        body = client.post("/models/canary/promote", headers=ADMIN).json()
        assert body["replaced"] is None
        assert client.post("/segment", content=PNG).json()["model"] == "other"
        assert client.post("/segment?model=tiny", content=PNG).json()["model"] == "tiny"


def test_it_is_dropped_by_one_call(start: Callable[..., Any]) -> None:
    with start() as client:
        assert "no canary" in problem(client.post("/models/canary/drop", headers=ADMIN), 404)
        ref = begin(client)
        client.post("/segment", content=PNG)
        compared(client, 1)
        for _ in range(2):
            body = client.post("/models/canary/drop", headers=ADMIN).json()
            assert (body["dropped"], body["default"][:5]) == (ref, "tiny@")
        assert client.post("/segment", content=PNG).json()["digest"] != ref[-12:]
        found = report(client)
        assert (found["state"], found["compared"], found["canary"]) == ("dropped", 1, ref)
        assert "by a call of" in found["reason"]
        problem(client.patch("/models/canary", headers=ADMIN, json={"share": 5}), 404)


@pytest.mark.parametrize("end", ["promote", "drop"])
def test_no_request_fails_while_it_ends(start: Callable[..., Any], end: str) -> None:
    with start() as client:
        begin(client, "turned", share=50)
        images, statuses = list(photos(8)), list[int]()
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                for image in images:
                    statuses.append(client.post("/segment?format=npy", content=image).status_code)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        wait_until(lambda: len(statuses) > 30)
        assert client.post(f"/models/canary/{end}", headers=ADMIN).status_code == 200
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 30)
        done.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}


def test_other_loads_and_the_canary_keep_out_of_each_others_way(start: Callable[..., Any]) -> None:
    with start() as client:
        ref = begin(client, "turned", share=7)
        assert "promote it or drop it first" in problem(client.post("/models/coarse/canary", headers=ADMIN), 409)
        assert begin(client, "turned", share=8) == ref
        assert report(client)["share"] == 8
        assert "besides its canary" in problem(client.post("/models/tiny/unload", headers=ADMIN), 409)
        client.post("/models/newer/load", headers=ADMIN)  # replaces the default, not the canary of the same name
        found = report(client)
        assert (found["state"], found["canary"]) == ("serving", ref)
        assert found["default"] == f"tiny@{client.get('/models/tiny').json()['digest']}"
        assert "serves here already" in problem(client.post("/models/newer/canary", headers=ADMIN), 409)
        loaded = client.post("/models/turned/load", headers=ADMIN, json={"default": True}).json()
        assert loaded["model"]["digest"] == ref[-12:]
        assert loaded["model"]["default"]
        assert report(client)["state"] == "promoted"
        begin(client, "coarse")
        coarse = report(client)["canary"]
        assert client.post(f"/models/{coarse}/unload", headers=ADMIN).status_code == 200
        assert report(client)["state"] == "dropped"


def test_only_who_administers_may(start: Callable[..., Any]) -> None:
    with start(keys="eve=eve-secret") as client:
        eve = {"X-API-Key": "eve-secret"}
        for call in (
            lambda headers: client.post("/models/newer/canary", headers=headers),
            lambda headers: client.patch("/models/canary", headers=headers, json={"share": 5}),
            lambda headers: client.post("/models/canary/promote", headers=headers),
            lambda headers: client.post("/models/canary/drop", headers=headers),
        ):
            problem(call({}), 401)
            problem(call(eve), 403)
        problem(client.get("/models/canary"), 401)
        assert client.get("/models/canary", headers=eve).status_code == 200
        for body in ({"share": 0}, {"share": 101}, {"share": "5"}, {"shares": 5}):
            problem(client.post("/models/newer/canary", headers=ADMIN, json=body), 422)
        assert "there are no options here" in problem(client.post("/models/canary/drop?x=1", headers=ADMIN), 422)


# Several servers


class Pair(Fleet):
    """Two servers in one process that ask each other over their event loops."""

    def __init__(self, member: str) -> None:
        super().__init__()
        self.member = member
        self.other: Pair | None = None
        self.client: Any = None

    async def ask(self, call: str, arguments: Call | None = None, *, limit_s: float = 5.0) -> list[Reply]:
        other = self.other
        if other is None or other.client is None:
            return []
        message = {"call": call, "arguments": arguments or {}}
        answer = await asyncio.to_thread(other.client.portal.call, other.replied, message)
        return [reply_of(other.member, answer)]


def test_all_servers_do_the_same_and_count_together(tiny_bundle: Path, shelf: Path, tmp_path: Path) -> None:
    given = Settings(bundles=(tiny_bundle,), state=tmp_path, models=shelf, admin_key="open sesame", threads=1)
    one, two = Pair("one"), Pair("two")
    one.other, two.other = two, one
    with (
        TestClient(create_app(given, Colors, fleet=one)) as here,
        TestClient(create_app(given, Colors, fleet=two)) as there,
    ):
        one.client, two.client = here, there
        for client in (here, there):
            wait_until(lambda client=client: client.get("/readyz").status_code == 200)  # type: ignore[misc]
        ref = begin(here, "coarse")
        images = list(photos(4))
        assert there.post("/segment?format=npy", content=images[0]).headers["x-model"] == ref
        for client, mine in ((here, images[:3]), (there, images[3:])):
            for image in mine:
                client.post("/segment?format=npy", content=image)
        wait_until(lambda: report(here)["compared"] == 5)
        found, same = report(here), report(there)
        assert (found["servers"], found["elsewhere"]) == (2, {})
        assert found["table"] == same["table"]
        assert found["answered"] == same["answered"] == {"default": 0, "canary": 5}
        tables = [client.app.state.tessera.canary.trial.table for client in (here, there)]
        assert found["table"] == (tables[0] + tables[1]).tolist() != tables[0].tolist()
        there.patch("/models/canary", headers=ADMIN, json={"share": 40})
        assert here.app.state.tessera.canary.share == 40  # type: ignore[attr-defined]
        body = there.post("/models/canary/promote", headers=ADMIN).json()
        assert body["elsewhere"] == {}
        for client in (here, there):
            assert f"tiny@{client.get('/models').json()['models'][0]['digest']}" == ref
        begin(here, "newer")
        there.portal.call(there.app.state.tessera.canary.drop, "as a test")
        assert report(here)["elsewhere"] == {"two": "dropped: as a test"}
        here.portal.call(here.app.state.tessera.canary._drop_itself, "it failed")
        wait_until(lambda: report(there)["state"] == "dropped")
        one.client = two.client = None


def test_counts_outlive_the_server_and_count_once(tiny_bundle: Path, shelf: Path, tmp_path: Path) -> None:
    given = Settings(bundles=(tiny_bundle,), state=tmp_path, models=shelf, admin_key="open sesame", threads=1)
    members = ("1", "2")
    folder = Path(tempfile.mkdtemp())  # a short name, for sockets
    create(folder, members)
    counted = ("answered", "compared", "table", "default", "since")

    def worker(member: str, stack: ExitStack) -> TestClient:
        app = create_app(given, Colors, fleet=UnixFleet(folder, members, member))
        client = stack.enter_context(TestClient(app))
        wait_until(lambda: client.get("/readyz").status_code == 200)
        return client

    def shown(client: TestClient) -> dict[str, Any]:
        return {name: report(client)[name] for name in counted}

    images = list(photos(5))
    with ExitStack() as first:
        here = worker("1", first)
        with ExitStack() as second:
            there = worker("2", second)
            ref = begin(here, "coarse")
            for client, mine in ((here, images[:2]), (there, images[2:])):
                for image in mine:
                    client.post("/segment?format=npy", content=image)
            wait_until(lambda: report(here)["compared"] == 5)
            before = shown(here)
        gone = report(here)
        assert {name: gone[name] for name in counted} == before
        assert gone["elsewhere"]["2"].endswith("; what it had counted is counted")
        with ExitStack() as second:
            there = worker("2", second)
            wait_until(lambda: report(there)["state"] == "serving")
            assert shown(here) == shown(there) == before
            assert report(here)["elsewhere"] == {}
            there.post("/segment?format=npy", content=next(photos(1, seed=9)))
            wait_until(lambda: report(here)["compared"] == 6)
            there.portal.call(there.app.state.tessera.canary._drop_itself, "it failed")  # type: ignore[union-attr,attr-defined]
            wait_until(lambda: report(here)["state"] == "dropped")
            before = shown(here)
        assert shown(here) == before
        with ExitStack() as second:  # it is shown as it ended
            there = worker("2", second)
            wait_until(lambda: report(there)["state"] == "dropped")
            assert (report(there)["reason"], report(there)["canary"]) == ("it failed", ref)
            assert shown(here) == shown(there) == before
        assert begin(here, "coarse") == ref
        again = report(here)
        assert (again["compared"], again["answered"]) == (0, {"default": 0, "canary": 0})
        with ExitStack() as second:
            there = worker("2", second)
            wait_until(lambda: report(there)["state"] == "serving")
            assert report(there)["compared"] == 0
    shutil.rmtree(folder)
