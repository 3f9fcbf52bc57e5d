"""The engine without a server: models loaded, threads started, looked after until the work is done.

Knows nothing of HTTP, or of what the work is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from models.bundle import Bundle
from service.engines import Engine
from service.inference.runtime import Runtime
from service.metrics import Metrics
from service.repository.registry import Registry
from service.scheduling.background import spawn
from service.scheduling.watchdog import Watchdog
from service.settings import Settings

GENEROUS: Mapping[str, Any] = {  # where nobody waits, and files are the user's own
    "max_bytes": 2 * 2**30,
    "max_mpx": 256.0,
    "max_side_px": 200_000,
    "max_queue_mpx": 1024.0,
    "timeout_s": 6 * 3600.0,
    "crf_timeout_s": 1800.0,
}


class Running(NamedTuple):
    """An engine: what all images share, and the models."""

    runtime: Runtime
    registry: Registry


def generous(settings: Settings) -> Settings:
    """The settings with limits for a user's own files, where the environment does not say others."""
    given = settings.model_fields_set
    return settings.model_copy(update={name: value for name, value in GENEROUS.items() if name not in given})


@asynccontextmanager
async def running(settings: Settings, open_engine: Callable[[Bundle], Engine] | None = None) -> AsyncIterator[Running]:
    """The settings' models, ready, until the block ends. Raises NoBundle, SettingsError.

    open_engine  puts another runtime under it, as tests do
    """
    metrics = Metrics()
    runtime = Runtime.of(settings, metrics)
    registry = Registry(settings, metrics, open_engine)
    watchdog = Watchdog([registry.recovery.tend, runtime.tend], metrics.loop_lag.observe, settings.engine_timeout_s)
    watching = spawn(watchdog.run(), "the watchdog")
    try:
        await registry.load()
        yield Running(runtime, registry)
    finally:
        await registry.close()
        runtime.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
