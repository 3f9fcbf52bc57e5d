"""The same server on Ray Serve: replicas on many machines, as many as the queue asks for.

    serve run service.ray_app:app
    serve run service.ray_app:build bundles=runs/street/bundle num_replicas=2 num_gpus=0.5

Settings are the TESSERA_ variables where the application is built; `Arguments` says what can be given besides.

Knows nothing of what is served, or of how a replica serves it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from service.errors import explain
from service.replica import Replica, check_shutdown, shortest_shutdown_s
from service.settings import Settings, SettingsError, embedded

_PROBES = 64  # asked beside as many requests as a replica answers at once


class Arguments(BaseModel):
    """What `serve run service.ray_app:build NAME=VALUE …` and `args:` of a configuration take."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bundles: str = Field(default="", description="bundle folders, separated as in PATH; none: TESSERA_BUNDLES")
    num_replicas: int = Field(default=1, ge=1, le=10_000, description="replicas; with max_replicas the fewest")
    max_replicas: int | None = Field(default=None, ge=1, le=10_000, description="the most, as the queue asks for them")
    target_ongoing_requests: float = Field(
        default=8.0,
        gt=0,
        le=10_000,
        description="requests in a replica, waiting or worked on, above which more are added",
    )
    num_cpus: float = Field(default=1.0, gt=0, le=1024, description="cores of a replica, which takes no more threads")
    num_gpus: float = Field(default=0.0, ge=0, le=64, description="GPUs of a replica; a fraction shares one")
    max_surge_percent: int = Field(
        default=0, ge=0, le=100, description="replicas added during an update, before old ones end; needs room for them"
    )
    graceful_shutdown_timeout_s: float | None = Field(
        default=None, gt=0, le=86_400, description="seconds that a replica has to finish what it was asked"
    )
    open: bool = Field(default=False, description="serve without keys beyond loopback")


def build(args: dict[str, Any]) -> Application:
    """The application. Raises SettingsError for arguments or TESSERA_ variables that cannot be used."""
    return application(read(args), Settings.from_env(os.environ))


def read(args: Mapping[str, Any]) -> Arguments:
    """Arguments as they were written. Raises SettingsError, naming one and what it takes."""
    try:
        given = Arguments.model_validate(dict(args))
    except ValidationError as error:
        meanings = {name: field.description or "" for name, field in Arguments.model_fields.items()}
        raise SettingsError(explain(error.errors(), meanings)) from None
    if given.max_replicas is not None and given.max_replicas < given.num_replicas:
        raise SettingsError(
            f"max_replicas: {given.max_replicas} is less than num_replicas, {given.num_replicas}, the fewest"
        )
    return given


def application(given: Arguments, settings: Settings, **more: Any) -> Application:
    """A deployment of replicas with these settings; `more` goes to each, as tests have it."""
    if given.bundles:
        bundles = tuple(Path(part) for part in given.bundles.split(os.pathsep) if part)
        settings = settings.model_copy(update={"bundles": bundles})
    shutdown_s = given.graceful_shutdown_timeout_s or shortest_shutdown_s(settings)
    check_shutdown(shutdown_s, settings)
    scaled: dict[str, Any] = {"num_replicas": given.num_replicas}
    if given.max_replicas is not None:
        scaled = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=given.num_replicas,
                max_replicas=given.max_replicas,
                target_ongoing_requests=given.target_ongoing_requests,
            )
        }
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="Tessera",
        ray_actor_options={"num_cpus": given.num_cpus, "num_gpus": given.num_gpus},
        # More than a replica answers at once: so that is who refuses, with Retry-After, and its queue what Ray counts.
        max_ongoing_requests=settings.max_requests + _PROBES,
        max_surge_percent=given.max_surge_percent,
        graceful_shutdown_timeout_s=shutdown_s,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},  # TESSERA_ACCESS_LOG has a line for each
        **scaled,
    )
    return deployment.bind(_anywhere(settings), given.open, **more)


def _anywhere(settings: Settings) -> Settings:
    """The same for replicas, which start in other folders, and find the embedded bundles where they are."""
    paths = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    many = {name: tuple(path.absolute() for path in getattr(settings, name)) for name in ("bundles", "roots")}
    if settings.bundles == embedded():
        many["bundles"] = ()
    return settings.model_copy(update={**paths, **many})


def __getattr__(name: str) -> Any:
    """`app`, built when it is asked for: whoever imports `build` may have other settings in mind."""
    if name == "app":
        return build({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
