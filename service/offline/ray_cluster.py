"""A Ray cluster, found or started here: its nodes, and how many workers of which size have room on them.

Knows nothing of images. Ray's own lines and bars are switched off: the command has its own.
"""

import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from typing import Any, NamedTuple

from models import hardware
from models.errors import TesseraError, UsageError
from models.extras import brings
from service.errors import quoted

LOCAL = "local"  # an address: one is started on this machine, and ends with the command
_CORES = 4  # of a worker, where nobody says how many workers there are
_STORE_BYTES = 128 * 2**20  # only names and reports travel
_TOKENS = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}  # by which somebody says who may join
_ANSWER_S = 5.0
_WAIT_S = 60.0  # for nodes that are still to come
_LOOK_EVERY_S = 1.0


class Node(NamedTuple):
    """What a machine of the cluster has."""

    cpus: float
    gpus: float

    def room(self, cores: float, gpus: float) -> int:
        """How many workers of this size it takes; of each GPU so many whole ones as it holds."""
        by_gpu = self.gpus // gpus if gpus >= 1 else self.gpus * (1 // gpus) if gpus else float("inf")
        return int(min(self.cpus // cores, by_gpu))


class Pool(NamedTuple):
    """Workers: as few, as many, each of so many cores and so much of a GPU."""

    fewest: int
    most: int
    cores: int
    gpus: float

    def __str__(self) -> str:
        count = f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
        return f"{count}, each with {self.cores} CPUs{gpus}"


class Wanted(NamedTuple):
    """What was asked for: how few and how many workers, 0 where nobody said, and how much of a GPU for each."""

    fewest: int = 0
    most: int = 0
    gpus: float = 0.0


def pool(nodes: Sequence[Node], wanted: Wanted) -> Pool | None:
    """The workers that have room, the fewest at least, each with as many cores as that leaves; None: they have none."""
    largest = int(max((node.cpus for node in nodes), default=0))

    def room(cores: int) -> int:
        return sum(node.room(cores, wanted.gpus) for node in nodes)

    if not wanted.most:
        for cores in range(min(_CORES, largest), 0, -1):
            if count := room(cores):
                return Pool(count, count, cores, wanted.gpus)
        return None
    for count in (wanted.most, wanted.fewest):
        for cores in range(largest, 0, -1):
            if room(cores) >= count:
                return Pool(wanted.fewest, wanted.most, cores, wanted.gpus)
    return None


def check_installed() -> None:
    """Raises UsageError where the extra is missing."""
    for package in ("ray", "pyarrow"):  # not imported: Ray reads the environment when it is
        if find_spec(package) is None:
            raise UsageError(f"--engine ray needs a package that is not installed ({package}): {brings('ray')}")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected until the block ends. Raises UsageError, TesseraError.

    The thread that calls this lives as long: a cluster that was started here ends with it, killed or not.
    """
    if address == LOCAL and not _TOKENS & os.environ.keys():
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    ray = _quiet()
    try:
        if address == LOCAL:
            ray.init(
                address=LOCAL,
                num_cpus=hardware.cores(),
                object_store_memory=_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
        else:
            _check_there(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except TesseraError:
        raise
    except Exception as error:
        where = "Ray cannot be started here" if address == LOCAL else f"--ray-address {quoted(address)}"
        raise TesseraError(f"{where}: {said_by(error)}") from None
    try:
        _quieter()
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def muted() -> Iterator[None]:
    """Until the block ends, what goes to stdout, and what compiled code says to descriptor 2, is lost: it is Ray's."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    before = sys.stderr
    with open(os.devnull, "w") as lost, os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace") as said:
        sys.stderr = said
        os.dup2(nowhere, 2)
        try:
            with redirect_stdout(lost):
                yield
        finally:
            os.dup2(kept, 2)
            sys.stderr = before
            os.close(kept)
            os.close(nowhere)


def fitting(ray: Any, wanted: Wanted, *, local: bool, stopped: Any, say: Any) -> Pool | None:
    """The workers there is room for; nodes that are still to come are waited for. None: it was stopped meanwhile.

    Raises UsageError where there is no room in the end.
    """
    until, told = time.monotonic() + (0 if local else _WAIT_S), False
    while True:
        nodes = _nodes(ray)
        if (found := pool(nodes, wanted)) is not None:
            idle = sum(node.gpus for node in nodes)
            if idle and not wanted.gpus:
                say(f"the cluster has {idle:g} GPUs, and none is used; --gpus 1 gives one to each worker")
            return found
        if time.monotonic() >= until:
            raise UsageError(_too_small(nodes, wanted))
        if not told:
            say(f"waiting {_WAIT_S:.0f} s for more nodes: {_too_small(nodes, wanted)}")
            _ask_for_nodes(wanted)
            told = True
        if stopped.wait(_LOOK_EVERY_S):
            return None


def free(ray: Any) -> str:
    """What of the cluster nobody uses now, for people."""
    left = ray.available_resources()
    return f"{left.get('CPU', 0):g} CPUs and {left.get('GPU', 0):g} GPUs"


def said_by(error: BaseException) -> str:
    """What Ray says, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _nodes(ray: Any) -> list[Node]:
    of = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Node(had.get("CPU", 0), had.get("GPU", 0)) for had in of]


def _too_small(nodes: Sequence[Node], wanted: Wanted) -> str:
    gpus = f" and {wanted.gpus:g} of a GPU" if wanted.gpus else ""
    count = max(1, wanted.fewest)
    has = f"{sum(node.cpus for node in nodes):g} CPUs and {sum(node.gpus for node in nodes):g} GPUs"
    return (
        f"the cluster has {has} on {len(nodes)} nodes, and {count} workers of 1 CPU{gpus} each are asked for; name"
        " fewer --workers or less of --gpus, or add nodes"
    )


def _ask_for_nodes(wanted: Wanted) -> None:
    """Of whoever adds nodes by itself."""
    with suppress(Exception):
        from ray.autoscaler.sdk import request_resources

        bundle = {"CPU": 1, **({"GPU": wanted.gpus} if wanted.gpus else {})}
        request_resources(bundles=[bundle] * max(1, wanted.fewest))


def _check_there(address: str) -> None:
    """Raises UsageError for an address at which no cluster is: Ray itself tries for minutes, or ends the process."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"--ray-address {quoted(address)}: no cluster answers there ({reason})") from None


def _quiet() -> Any:
    """Ray, with nothing that it says by itself, and nothing sent to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # what still runs after the end starts no cluster of its own
    import ray
    import ray.data

    _quieter()
    return ray


def _quieter() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
