"""The models a server holds, as `GET /models` and `/healthz` show them.

Knows nothing of requests' bodies.
"""

from fastapi import Request

from service.api import responses
from service.api.dependencies import state_of
from service.repository.cluster_names import TransferReport
from service.repository.served_model import Served


def model_info(request: Request, served: Served) -> responses.ModelInfo:
    registry = state_of(request).registry
    return responses.ModelInfo(
        name=served.name,
        digest=served.bundle.digest[:12],
        state="leaving" if served in registry.leaving else "failed" if served.trouble else "ready",
        default=served is next(iter(registry.served), None),
        canary=served is registry.canary,
        method=served.bundle.manifest.method,
        k=served.clusters.count,
        engine=served.engine.name,
        provider=served.engine.provider,
        note=served.engine.note,
        memory_bytes=served.nbytes,
        reason=served.trouble,
    )


def absent_models(request: Request) -> list[responses.ModelInfo]:
    """Folders that are not served: one being loaded, and those that failed."""
    registry = state_of(request).registry
    rows = [
        responses.ModelInfo(name=name, digest=None, state="failed", default=False, reason=reason)
        for name, reason in registry.failed.items()
        if name != registry.loading
    ]
    if registry.loading is not None:
        rows.append(responses.ModelInfo(name=registry.loading, digest=None, state="loading", default=False))
    return rows


def all_models(request: Request) -> list[responses.ModelInfo]:
    registry = state_of(request).registry
    return [model_info(request, served) for served in registry.served + registry.leaving] + absent_models(request)


def followed_of(followed: TransferReport) -> responses.Followed:
    """What became of names, colors and merges."""
    return responses.Followed(
        by=followed.by,
        carried=[responses.FollowedCluster(**pair._asdict()) for pair in followed.carried],
        lost=[responses.LostCluster(**lost._asdict()) for lost in followed.lost],
    )
