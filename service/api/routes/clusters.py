"""GET and PATCH /clusters: what the model tells apart, and what people call it.

Knows nothing of images; names and colors live in `service/repository/cluster_names.py`.
"""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from service.api import conditional, openapi, responses
from service.api.dependencies import allowed_caller, served_of, state_of
from service.api.request import read_json
from service.errors import BadOption, NotFound
from service.inference import options
from service.repository.cluster_changes import Change
from service.repository.cluster_names import ClusterState
from service.repository.served_model import Served

log = logging.getLogger("tessera")

router = APIRouter(tags=["clusters"])
_READ: dict[str, Any] = {
    "responses": openapi.responses(304, 401, 404, 412, 422, 503, headers=conditional.RESPONSE_HEADERS),
    "openapi_extra": conditional.parameters("If-None-Match", "If-Match"),
}


@router.get(
    "/clusters",
    operation_id="clusters",
    summary="What a model tells apart, with what people called it",
    response_model=responses.ClusterList,
    **_READ,
)
async def clusters(request: Request, query: Annotated[responses.ClustersQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    state = await served.clusters.refresh()
    answer = responses.ClusterList(
        **_head(served),
        levels=served.clusters.levels,
        clusters=[_describe(request, served, state, i, query.include) for i in range(served.clusters.count)],
    )
    return conditional.tagged(request, answer)


@router.get(
    "/clusters/tree",
    operation_id="clusterTree",
    summary="Which clusters become one, from all of them down to two",
    response_model=responses.ClusterTree,
    **_READ,
)
async def tree(request: Request, query: Annotated[options.ModelQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    answer = responses.ClusterTree(
        **_head(served),
        by=served.bundle.manifest.hierarchy_by,
        merges=[responses.MergeStep(**dict(merge)) for merge in served.bundle.manifest.hierarchy],
    )
    return conditional.tagged(request, answer)


@router.get(
    "/clusters/{id:id}",
    operation_id="cluster",
    summary="One cluster: name, color, share, neighbors, example patches",
    response_model=responses.ClusterInfo,
    **_READ,
)
async def cluster(id: int, request: Request, query: Annotated[responses.ClustersQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    state = await served.clusters.refresh()
    return conditional.tagged(request, _describe(request, served, state, id, query.include))


@router.patch(
    "/clusters/{id:id}",
    operation_id="changeCluster",
    summary="Name, color, hide or merge a cluster; every answer shows it from now on",
    response_model=responses.ClusterInfo,
    responses=openapi.responses(400, 401, 404, 408, 412, 413, 415, 422, 503, 507, headers=conditional.RESPONSE_HEADERS),
    openapi_extra=openapi.json_body(Change, required=True) | conditional.parameters("If-Match"),
)
async def change_cluster(id: int, request: Request, query: Annotated[options.ModelQuery, Query()]) -> Response:
    caller = allowed_caller(request, "edit")
    change = await read_json(request, Change, hint='send for instance {"name": "road"}')
    if not change.model_fields_set:
        raise BadOption(f"nothing to change; give one of {', '.join(Change.model_fields)}")
    served = served_of(request, query.model)  # only now: it may have been replaced while the body came
    before: list[responses.ClusterInfo] = []

    def unchanged(state: ClusterState) -> None:
        before[:] = [_describe(request, served, state, id, None)]
        conditional.check_unchanged(request.headers, before[0])

    after = _describe(request, served, await served.clusters.patch(id, change, unchanged), id, None)
    _log_change(request, caller, before[0], after, change.model_fields_set)
    state_of(request).tell_names()
    return conditional.changed(after)


@router.get(
    "/clusters/{id:id}/exemplars/{n:id}",
    operation_id="exemplar",
    summary="A patch of a training image, with the cluster's region outlined",
    response_class=FileResponse,
    responses=openapi.responses(401, 404, 422, 503, ok=openapi.files("image/webp")),
)
async def exemplar(id: int, n: int, request: Request, query: Annotated[options.ModelQuery, Query()]) -> FileResponse:
    served = served_of(request, query.model)
    patches = served.bundle.exemplars(served.clusters.check(id))
    if not 0 <= n < len(patches):
        raise NotFound(f"no exemplar {n}: cluster {id} has {len(patches)}")
    if not patches[n].is_file():
        raise NotFound(f"exemplar {n} of cluster {id} is gone: the folder of {served.bundle.ref} changed; reload it")
    return FileResponse(patches[n], media_type=openapi.media_type(request, "image/webp"))


def _log_change(
    request: Request, caller: str, before: responses.ClusterInfo, after: responses.ClusterInfo, fields: set[str]
) -> None:
    """One line: who changed what. Names are quoted, so that none can break it."""
    values = [(field, getattr(before, field), getattr(after, field)) for field in sorted(fields)]
    told = ", ".join(f"{field} {old!r} → {new!r}" for field, old, new in values)
    who, where, id = caller or "somebody without a key", request.state.model, request.state.request_id
    log.info("%s changed cluster %d of %s: %s, request %s", who, after.id, where, told, id)


def _head(served: Served) -> dict[str, Any]:
    return {"model": served.name, "digest": served.bundle.digest[:12], "k": served.clusters.count}


def _describe(
    request: Request, served: Served, state: ClusterState, id: int, include: str | None
) -> responses.ClusterInfo:
    look, change = state.style, state.changes.get(served.clusters.check(id), Change())
    own = served.bundle.manifest.clusters[id]
    default = state_of(request).registry.served[0]
    which = "" if served is default else f"?model={served.bundle.ref}"
    root = request.scope.get("root_path", "")
    extra = {"centroid": served.bundle.centroids[id].tolist()} if include == "centroids" else {}
    return responses.ClusterInfo(
        id=id,
        name=look.names[id],
        color="#" + look.colors[id].tobytes().hex(),
        fraction=own.fraction,
        hidden=id in look.hidden,
        merged_into=change.merged_into,
        neighbors=[responses.Neighbor(id=j, cosine=c) for j, c in served.clusters.neighbors[id]],
        exemplars=[f"{root}/clusters/{id}/exemplars/{n}{which}" for n in range(len(served.bundle.exemplars(id)))],
        default_name=own.name,
        default_color=own.color,
        **extra,
    )
