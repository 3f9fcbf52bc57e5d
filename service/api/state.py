"""What the routes of one server share.

Knows nothing of routes.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.api.auth import Keys
from service.api.middleware import Traffic
from service.inference.runtime import House
from service.metrics import Metrics
from service.repository.registry import Registry
from service.settings import Settings


@dataclass(frozen=True)
class Rooms:
    """Settings, counters, models, threads, who may ask."""

    settings: Settings
    metrics: Metrics
    registry: Registry
    house: House
    traffic: Traffic
    keys: Keys
