"""The state of one server: what its routes share, and where it is in its life.

Knows nothing of routes.
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from service.api.auth import ApiKeys
from service.api.client_address import TrustedProxies
from service.api.middleware import InFlight
from service.fleet.fleet import Fleet
from service.inference.comparison import Comparisons
from service.inference.runtime import Runtime
from service.jobs.jobs import Jobs
from service.metrics import Metrics
from service.repository.canary import Canary
from service.repository.registry import Registry
from service.repository.shared_models import SharedModels
from service.scheduling.background import spawn
from service.settings import Settings


class Lifecycle(StrEnum):
    """Where a server is in its life, in this order; `failed` ends it by itself.

    leaving   it serves as always, and tells balancers to go elsewhere
    draining  it finishes what it was asked, and refuses what is new
    """

    LOADING = "loading"
    READY = "ready"
    LEAVING = "shutting down"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass
class AppState:
    """The parts of one server. `starting` loads the models, then compiles what the CRF lacks; it ends by itself.

    fleet    the servers under its address, of which it is one
    failure  why it failed, once it has
    """

    settings: Settings
    metrics: Metrics
    registry: Registry
    runtime: Runtime
    in_flight: InFlight
    keys: ApiKeys
    proxies: TrustedProxies
    jobs: Jobs
    models: SharedModels
    canary: Canary
    comparisons: Comparisons
    fleet: Fleet = field(default_factory=Fleet)
    lifecycle: Lifecycle = Lifecycle.LOADING
    failure: str = ""
    starting: asyncio.Task[None] | None = None

    def fail(self, why: str) -> None:
        """This server cannot serve, or not any more."""
        self.failure = why
        self.lifecycle = Lifecycle.FAILED

    def drain(self) -> None:
        """From now on what was asked is finished, and what is new refused."""
        self.lifecycle = Lifecycle.DRAINING
        self.in_flight.closed = True
        self.jobs.drain()

    def tell_names(self) -> None:
        """Other servers under the address show at once what changed here, and not only within a second."""
        if len(self.fleet.members) > 1:
            spawn(self.fleet.ask("names"), "telling others of a change")

    def not_ready(self) -> str | None:
        """Why a balancer should ask another server; None where it need not."""
        if self.lifecycle is not Lifecycle.READY:
            return f"the server is {self.lifecycle}"
        return self.trouble() or self.flood()

    def trouble(self) -> str | None:
        """What is wrong with this server itself, so that another process would be better; None: nothing."""
        return self.failure or self.registry.recovery.trouble()

    def flood(self) -> str | None:
        """Whether it has too much to do, which passes."""
        return "the queue has been nearly full for a while" if self.runtime.admission.flooded() else None
