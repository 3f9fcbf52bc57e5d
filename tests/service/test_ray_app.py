"""Replicas on a real Ray of two cores: what they answer, and what nobody notices of updates and of processes killed."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

pytest.importorskip("ray.serve")

from models.bundle import Bundle
from models.io.encode import encode
from service.ray_app import Arguments, application, read
from service.replica import MARGIN_S, Bounded, shortest_shutdown_s
from service.settings import Settings, SettingsError
from tests.service import ray_cluster
from tests.service.process import ROOT
from tests.service.ray_cluster import NAP_S, Cluster, controllers, kill, load, replicas, until
from tests.service.server import proved, server_of
from tests.tiny import bands

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # those of Ray, in this process

IMAGE = encode(bands(), "png")
BLACK = encode(bands(order=(4, 0, 1, 2, 3)), "png")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster.cluster() as found:
        yield found


@pytest.fixture(scope="module")
def settings(cluster: Cluster, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of what is deployed when the module begins."""
    given = Settings(bundles=(tiny_bundle,), state=proved(tiny_bundle, tmp_path_factory.mktemp("state")))
    cluster.deploy(given)
    return given


def test_two_replicas_answer_what_the_plain_server_answers(cluster: Cluster, settings: Settings) -> None:
    asked = [(f"/segment?format={form}", image) for form in ("png", "npy", "overlay") for image in (IMAGE, BLACK)]
    with server_of(settings.bundles[0], settings.state)() as plain, cluster.client() as ray:
        for path, image in asked:
            wanted = plain.post(path, content=image)
            for _ in range(8):  # whichever of the two it is
                answer = ray.post(path, content=image)
                assert (answer.status_code, answer.content) == (200, wanted.content)
                assert answer.headers["x-model"] == wanted.headers["x-model"]
                assert len(answer.headers.get_list("x-request-id")) == 1
    assert len(replicas()) == 2


def test_http_is_that_of_the_plain_server(cluster: Cluster, settings: Settings) -> None:
    with cluster.client() as ray:
        head = ray.head("/models")
        assert head.status_code == 200
        assert not head.content
        assert int(head.headers["content-length"]) > 0
        tagged = ray.get("/clusters")
        assert ray.get("/clusters", headers={"if-none-match": tagged.headers["etag"]}).status_code == 304
        assert ray.get("/readyz", headers={"x-request-id": "mine-1"}).headers.get_list("x-request-id") == ["mine-1"]
        refused = ray.get("/segment", headers={"host": "elsewhere.example"})
        assert refused.status_code == 421  # Ray listens on loopback, and so does the app
        nothing = ray.post("/segment", content=b"")
        assert nothing.status_code == 400
        assert nothing.json()["request_id"] == nothing.headers["x-request-id"]
        large = ray.post("/segment", content=bytes(70 * 2**20))
        assert large.status_code == 413
        assert ray.post("/models/other/load").status_code == 403


def test_a_scrape_has_every_replica_for_itself(cluster: Cluster, settings: Settings) -> None:
    with cluster.client() as ray:
        for _ in range(12):
            assert ray.post("/segment", content=IMAGE).status_code == 200
        counted = _images_of_each(ray)
    assert len(counted) == 2
    assert sum(counted.values()) >= 12


def test_a_name_said_to_one_replica_shows_in_both_within_two_seconds(cluster: Cluster, settings: Settings) -> None:
    with cluster.client() as ray:
        said = ray.patch("/clusters/1", json={"name": "meadow"})
        assert said.status_code == 200
        time.sleep(2)
        names = {ray.get("/clusters").json()["clusters"][1]["name"] for _ in range(20)}
        assert names == {"meadow"}


def test_a_request_that_would_outlive_its_replica_is_answered_by_us() -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"].update(request_id="r1", path="/segment", unread=False)
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Bounded(app, 0.01)({"type": "http", "method": "POST", "headers": []}, send, send))
    assert sent[0]["status"] == 504
    assert b'"request_id":"r1"' in sent[1]["body"].replace(b": ", b":")


def test_an_update_under_load_fails_no_request_and_keeps_names(
    cluster: Cluster, settings: Settings, make_bundle: Callable[..., Path]
) -> None:
    newer = make_bundle("tiny", encoder_onnx=_other_network())
    refs = [Bundle.load(folder).ref for folder in (settings.bundles[0], newer)]
    proved(newer, settings.state)
    with cluster.client() as ray, load(cluster, IMAGE) as seen:
        ray.patch("/clusters/2", json={"name": "lake"})
        until(lambda: len(seen.statuses) > 20)
        cluster.deploy(settings.model_copy(update={"bundles": (newer,)}))
        count = len(seen.statuses)
        until(lambda: len(seen.statuses) > count + 20)
        names = {ray.get("/clusters").json()["clusters"][2]["name"] for _ in range(20)}
    assert (seen.lost, set(seen.statuses), seen.said) == ([], {200}, set())
    assert seen.models[0] == refs[0]
    assert seen.models[-1] == refs[1]
    assert names == {"lake"}


def test_a_long_request_outlives_an_update(cluster: Cluster, settings: Settings) -> None:
    cluster.deploy(settings, open_engine=ray_cluster.sleepy)
    found: list[Any] = []

    def ask() -> None:
        with cluster.client() as ray:
            found.append(ray.post("/segment?format=png", content=BLACK))

    with load(cluster, IMAGE) as seen:
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(1)
        began = time.monotonic()
        cluster.deploy(settings)
        asking.join()
    assert time.monotonic() - began > NAP_S / 2
    assert found[0].status_code == 200
    assert seen.failed() == 0


def test_of_a_replica_killed_under_load_only_what_was_in_it_is_lost(cluster: Cluster, settings: Settings) -> None:
    cluster.deploy(settings)
    with load(cluster, IMAGE, clients=4) as seen:
        until(lambda: len(seen.statuses) > 20)
        before = replicas()
        kill(before[0])
        until(lambda: len(replicas()) == 2 and before[0] not in replicas() and cluster.running() == 2)
        count = len(seen.statuses)
        until(lambda: len(seen.statuses) > count + 20)
    assert set(seen.statuses) <= {200, 500, 503}
    assert seen.failed() <= 4  # what each client had asked
    assert all(status == 200 for status in seen.statuses[-20:])


def test_a_replica_killed_while_it_starts_and_a_killed_controller_fail_no_request(
    cluster: Cluster, settings: Settings
) -> None:
    cluster.deploy(settings)
    changed = settings.model_copy(update={"max_mpx": 40.0})
    with load(cluster, IMAGE) as seen:
        before = set(replicas())
        cluster.deploy(changed, wait=False)
        until(lambda: bool(set(replicas()) - before))
        kill((set(replicas()) - before).pop())  # it has hardly begun
        until(lambda: cluster.status().status == "RUNNING" and not before & set(replicas()))
        (controller,) = controllers()
        kill(controller)
        until(lambda: controllers() not in ([], [controller]))
        cluster.deploy(settings)
    assert (seen.lost, set(seen.statuses), seen.said) == ([], {200}, set())


def test_an_update_whose_controller_is_killed_is_finished_and_fails_no_request(
    cluster: Cluster, settings: Settings
) -> None:
    cluster.deploy(settings)
    with load(cluster, IMAGE) as seen:
        before = set(replicas())
        (controller,) = controllers()
        cluster.deploy(settings.model_copy(update={"max_mpx": 41.0}), wait=False)
        until(lambda: bool(set(replicas()) - before))  # the first of two is on its way
        kill(controller)
        until(lambda: controllers() not in ([], [controller]))
        until(lambda: len(replicas()) == 2 and not before & set(replicas()) and cluster.running() == 2, limit_s=90)
        count = len(seen.statuses)
        until(lambda: len(seen.statuses) > count + 20)
    assert (seen.lost, set(seen.statuses), seen.said) == ([], {200}, set())


def test_updates_one_after_the_other_fail_no_request(cluster: Cluster, settings: Settings) -> None:
    cluster.deploy(settings)
    with load(cluster, IMAGE) as seen:
        for max_mpx in (42.0, 43.0, 44.0):
            before = set(replicas())
            cluster.deploy(settings.model_copy(update={"max_mpx": max_mpx}))
            assert not before & set(replicas())
    assert len(seen.statuses) > 20
    assert (seen.lost, set(seen.statuses), seen.said) == ([], {200}, set())


def test_a_queue_brings_another_replica(cluster: Cluster, settings: Settings) -> None:
    cluster.delete()  # or Ray keeps the two that there are
    wanted = {"num_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
    every = settings.model_copy(update={"cache_bytes": 0})
    cluster.deploy(every, arguments=wanted, open_engine=ray_cluster.slow)
    assert cluster.running() == 1
    with cluster.client() as ray, load(cluster, IMAGE, clients=6) as seen:
        until(lambda: cluster.running() == 2, limit_s=120)
        until(lambda: len([count for count in _images_of_each(ray).values() if count]) == 2)
    assert len(replicas()) == 2
    assert seen.failed() == 0


def test_a_start_that_fails_says_why(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        cluster.deploy(settings.model_copy(update={"bundles": (tmp_path / "nothing",)}))
    assert "is no bundle folder" in cluster.status().deployments["Tessera"].message
    cluster.deploy(settings)


def test_a_shutdown_shorter_than_a_request_is_refused(settings: Settings, cluster: Cluster) -> None:
    least_s = shortest_shutdown_s(settings)
    assert least_s == settings.body_timeout_s + settings.timeout_s + MARGIN_S
    with pytest.raises(SettingsError, match=f"make it {least_s:g} or more"):
        application(read({"graceful_shutdown_timeout_s": least_s - 1}), settings)
    target = application(read({}), settings)
    short = target._bound_deployment.options(graceful_shutdown_timeout_s=least_s - 1)  # as a YAML may say
    from ray import serve

    with pytest.raises(RuntimeError):
        serve.run(short.bind(settings), name=ray_cluster.NAME)
    assert "is too short" in cluster.status().deployments["Tessera"].message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_replica": 2}, "did you mean 'num_replicas'"),
        ({"num_replicas": "many"}, "num_replicas: .*integer"),
        ({"num_replicas": 4, "max_replicas": 2}, "less than num_replicas"),
        ({"num_gpus": -1}, "num_gpus"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(given)


def test_arguments_as_a_shell_gives_them() -> None:
    given = read({"num_replicas": "2", "num_gpus": "0.5", "open": "true", "bundles": "a:b"})
    assert given == Arguments(num_replicas=2, num_gpus=0.5, open=True, bundles="a:b")
    made = application(given, Settings(state=Path("here")))._bound_deployment
    assert made.ray_actor_options["num_gpus"] == 0.5
    settings = made.init_args[0]
    assert [path.is_absolute() for path in (settings.state, *settings.bundles)] == [True] * 3


def test_the_configuration_in_deploy_is_one() -> None:
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(document).applications
    assert application.import_path == "service.ray_app:build"
    assert read(application.args).max_replicas == 8
    Settings.from_env({**application.runtime_env["env_vars"]})


def _images_of_each(ray: httpx.Client) -> dict[str, float]:
    """How many images each replica has answered."""
    lines = [line for line in ray.get("/metrics").text.splitlines() if line.startswith("tessera_images_total{")]
    return {line.partition('replica="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def _other_network() -> bytes:
    """The tiny network once more, as another file."""
    import onnx

    from tests.tiny import mean_color_onnx

    model = onnx.load_from_string(mean_color_onnx())
    model.doc_string = "another"
    return bytes(model.SerializeToString())
