"""Where `tessera segment` works: in this process, or on Ray; what was typed of that is judged here.

Knows nothing of images, and starts nothing.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from models.errors import UsageError
from service.errors import nearest, quoted
from service.offline import ray_cluster
from service.offline.local import Local
from service.offline.ray_cluster import LOCAL, Wanted
from service.offline.ray_engine import OnRay
from service.offline.work import Executor, Say
from service.settings import Settings

_ENGINES = ("local", "ray")
_MOST = 1024
_WORKERS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)


class Place(Protocol):
    """Where images are segmented."""

    def settings(self, settings: Settings) -> Settings:
        """Those of an engine there."""

    def executor(self, say: Say) -> AbstractContextManager[Executor]:
        """Who does the work, until the block ends."""


@dataclass(frozen=True)
class _Here:
    threads: int

    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"workers": self.threads}) if self.threads else settings

    def executor(self, say: Say) -> AbstractContextManager[Executor]:
        return nullcontext(Local(say))


@dataclass(frozen=True)
class _OnRay:
    wanted: Wanted
    address: str

    def settings(self, settings: Settings) -> Settings:
        """Paths are meant from here, and no worker measures which engine is the fastest: all answer alike."""
        changes: dict[str, object] = {
            "workers": 0,
            "threads": settings.threads if "threads" in settings.model_fields_set else 0,
            "state": settings.state.absolute(),
            "bundles": tuple(bundle.absolute() for bundle in settings.bundles),
            "trust": settings.trust and settings.trust.absolute(),
        }
        if settings.engine == "auto":
            changes["engine"] = "cuda" if self.wanted.gpus else "onnxruntime"
        return settings.model_copy(update=changes)

    @contextmanager
    def executor(self, say: Say) -> Iterator[Executor]:
        with ray_cluster.muted():
            yield OnRay(say, self.wanted, self.address)


def place_of(engine: str, workers: str, address: str | None, gpus: float) -> Place:
    """What --engine, --workers, --ray-address and --gpus come to. Raises UsageError."""
    if engine not in _ENGINES:
        hint = nearest(engine.lower(), list(_ENGINES))
        raise UsageError(f"--engine: no such engine: {quoted(engine)}{hint}; there are {', '.join(_ENGINES)}")
    fewest, most = _workers(workers)
    if engine == "local":
        for given, name in ((address, "--ray-address"), (gpus, "--gpus"), (fewest != most, "--workers MIN-MAX")):
            if given:
                raise UsageError(f"{name} is for --engine ray, which this is not")
        return _Here(most)
    if not gpus >= 0 or (gpus > 1 and gpus != int(gpus)):
        raise UsageError(f"--gpus {gpus:g}: give a part of one GPU, or several whole ones")
    if address is not None and address != "auto" and not re.fullmatch(r"[^\s/:]+:[0-9]+|\[[^\s/]+\]:[0-9]+", address):
        raise UsageError(
            f"--ray-address {quoted(address)}: give auto, or HOST:PORT as `ray start` told it; from elsewhere send the"
            " command to the cluster with `ray job submit`"
        )
    ray_cluster.check_installed()
    return _OnRay(Wanted(fewest, most, gpus), address or LOCAL)


def _workers(text: str) -> tuple[int, int]:
    """How few and how many. Raises UsageError."""
    match = _WORKERS.fullmatch(text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
    if match is None or most > _MOST or fewest > most or (match[2] and not fewest):
        raise UsageError(f"--workers {quoted(text)}: give a number from 0 to {_MOST}, with --engine ray also MIN-MAX")
    return fewest, most
