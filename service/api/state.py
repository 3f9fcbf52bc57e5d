"""What the routes of one server share.

Knows nothing of routes.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.api.auth import ApiKeys
from service.api.middleware import InFlight
from service.inference.runtime import Runtime
from service.metrics import Metrics
from service.repository.registry import Registry
from service.settings import Settings


@dataclass(frozen=True)
class AppState:
    """Settings, counters, models, threads, who may ask."""

    settings: Settings
    metrics: Metrics
    registry: Registry
    runtime: Runtime
    in_flight: InFlight
    keys: ApiKeys
