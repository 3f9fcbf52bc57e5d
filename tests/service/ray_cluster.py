"""A Ray cluster of this process, Ray Serve on a port of loopback; clients who ask it again and again; who is killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine
from models.bundle import Bundle
from models.inference import Prediction
from service.engines import Engine
from service.ray_app import application, read
from service.settings import Settings
from tests.service.fakes import FakeEngine, free_port

NAME = "tessera"
NAP_S = 10.0
STEP_S = 0.5
_PAUSE_S = 0.02
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_worker_niceness": "0",  # 15 otherwise: clients in this process would starve the replicas
}


@dataclass
class Cluster:
    """Where it answers; `deploy` puts an application there, or another in its place."""

    port: int

    def deploy(
        self, settings: Settings, *, wait: bool = True, arguments: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """With two replicas, unless the arguments say otherwise. Raises RuntimeError where it fails."""
        from ray import serve

        target = application(read({"num_replicas": 2, **(arguments or {})}), settings, **more)
        serve.run_many([serve.RunTarget(target, name=NAME)], wait_for_applications_running=wait)

    def delete(self) -> None:
        """What was deployed, and with it how many replicas it had come to."""
        from ray import serve

        serve.delete(NAME)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def status(self) -> Any:
        from ray import serve

        return serve.status().applications[NAME]

    def running(self) -> int:
        return int(self.status().deployments["Tessera"].replica_states.get("RUNNING", 0))


class Sleepy(FakeEngine):
    """Takes NAP_S over an image whose first pixel is black."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        if pixels[0, 0, 0].max() < 20:
            time.sleep(NAP_S)
        return super().__call__(pixels, code=code)


class Slow(FakeEngine):
    """Takes STEP_S over every image."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        time.sleep(STEP_S)
        return super().__call__(pixels, code=code)


def sleepy(bundle: Bundle) -> Engine:
    return Sleepy()


def slow(bundle: Bundle) -> Engine:
    return Slow()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Two cores, nothing but loopback, no dashboard."""
    os.environ.update(_ENVIRONMENT)
    import ray
    from ray import serve

    found = Cluster(free_port())
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": found.port}, logging_config={"log_level": "ERROR"})
        yield found
    finally:
        serve.shutdown()
        ray.shutdown()


@dataclass
class Load:
    """What clients saw who ask again and again.

    statuses  of the answers in the order they came;  models  that gave them;  lost  why there was no answer
    """

    statuses: list[int] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    bodies: set[bytes] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)

    def failed(self) -> int:
        return len(self.lost) + sum(status != 200 for status in self.statuses)


@contextmanager
def load(cluster: Cluster, image: bytes, clients: int = 3) -> Iterator[Load]:
    """So many clients while the block runs; at its end each has its last answer."""
    seen, over = Load(), threading.Event()

    def ask() -> None:
        with cluster.client() as client:
            while not over.wait(_PAUSE_S):
                try:
                    answer = client.post("/segment?format=png", content=image)
                except httpx.HTTPError as error:
                    seen.lost.append(type(error).__name__)
                    continue
                seen.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    seen.models.append(answer.headers["x-model"])
                    seen.bodies.add(answer.content)
                else:
                    seen.said.add(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def replicas() -> list[int]:
    """The processes of this cluster's replicas."""
    return _of("ServeReplica")


def controllers() -> list[int]:
    return _of("ServeController")


def kill(pid: int) -> None:
    """As the system does where memory is short."""
    os.kill(pid, signal.SIGKILL)


def until(true: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _of(name: str) -> list[int]:
    found = []
    for pid in machine.children(os.getpid()):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::" + name.encode()):
            found.append(pid)
    return sorted(found)
