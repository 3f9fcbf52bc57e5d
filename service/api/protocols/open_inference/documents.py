"""The JSON documents of the Open Inference Protocol besides the call and its answer: shapes, and what fills them.

Knows nothing of requests.
"""

from typing import Any

import orjson
from pydantic import BaseModel, Field

from service.api.protocols.open_inference.tensors import INPUTS, OUTPUTS, Tensor
from service.metrics import tessera_version
from service.repository.registry import Registry
from service.repository.served_model import Served
from service.repository.statistics import Total

NAME, VERSION = "tessera", "1"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_repository(unload_dependents)", "model_configuration",
              "statistics", "schedule_policy")  # fmt: skip


class OipServer(BaseModel):
    """GET /v2."""

    name: str
    version: str
    extensions: list[str]


class OipLive(BaseModel):
    """GET /v2/health/live."""

    live: bool


class OipReady(OipLive):
    """GET /v2/health/ready."""

    ready: bool


class OipTensor(BaseModel):
    """One tensor of a model; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class OipModel(BaseModel):
    """GET /v2/models/{model}."""

    name: str
    versions: list[str] = Field(description="1: the bundle that is served now; its digest is one as well")
    platform: str
    inputs: list[OipTensor]
    outputs: list[OipTensor]
    parameters: dict[str, str | int | bool]


class OipModelReady(BaseModel):
    """GET /v2/models/{model}/ready."""

    name: str
    ready: bool


class OipConfigTensor(BaseModel):
    """One tensor, in Triton's words."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class OipConfigParameter(BaseModel):
    """A text of a configuration."""

    string_value: str


class OipConfig(BaseModel):
    """GET /v2/models/{model}/config, as Triton has it."""

    name: str
    platform: str
    backend: str
    max_batch_size: int = Field(description="0: the tensors' first dimension is the batch")
    input: list[OipConfigTensor]
    output: list[OipConfigTensor]
    parameters: dict[str, OipConfigParameter]


class OipTotal(BaseModel):
    """So many things, and the nanoseconds they took together."""

    count: int
    ns: int


class OipInferenceStatistics(BaseModel):
    """success and fail count requests, the others images."""

    success: OipTotal
    fail: OipTotal
    queue: OipTotal
    compute_input: OipTotal = Field(description="decoding")
    compute_infer: OipTotal = Field(description="the network")
    compute_output: OipTotal = Field(description="labels, edges, the answer")
    cache_hit: OipTotal
    cache_miss: OipTotal


class OipModelStatistics(BaseModel):
    """What one model has done since it was loaded."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0: none yet")
    inference_count: int = Field(description="images")
    execution_count: int = Field(description="batches")
    inference_stats: OipInferenceStatistics


class OipStatistics(BaseModel):
    """GET /v2/models/stats, /v2/models/{model}/stats."""

    model_stats: list[OipModelStatistics]


class OipIndexEntry(BaseModel):
    """One model of POST /v2/repository/index."""

    name: str
    version: str
    state: str
    reason: str


class OipOutput(BaseModel):
    """One tensor of an answer."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, str | int | bool] | None = None
    data: list[int | float] | None = Field(default=None, description="absent where the bytes stand behind the JSON")


class OipAnswer(BaseModel):
    """The answer of …/infer; with Inference-Header-Content-Length only its first bytes are this."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str | int | bool] | None = None
    outputs: list[OipOutput]


class OipDone(BaseModel):
    """The answer of a load or an unload."""


def server() -> OipServer:
    return OipServer(name=NAME, version=tessera_version(), extensions=[*EXTENSIONS])


def model(served: Served) -> OipModel:
    return OipModel(
        name=served.name,
        versions=[VERSION],
        platform="onnx_onnxv1",
        inputs=[_tensor(tensor) for tensor in INPUTS],
        outputs=[_tensor(tensor) for tensor in OUTPUTS],
        parameters={"digest": served.bundle.digest[:12], "k": served.clusters.count},
    )


def config(served: Served) -> OipConfig:
    names = orjson.dumps(served.clusters.style.names).decode()
    return OipConfig(
        name=served.name,
        platform="onnxruntime_onnx",
        backend=served.engine.name,
        max_batch_size=0,
        input=[_config(tensor, optional=True) for tensor in INPUTS],
        output=[_config(tensor) for tensor in OUTPUTS],
        parameters={
            "digest": OipConfigParameter(string_value=served.bundle.digest[:12]),
            "clusters": OipConfigParameter(string_value=names),
        },
    )


def statistics(all_served: list[Served], version: str = VERSION) -> OipStatistics:
    return OipStatistics(model_stats=[_statistics(served, version) for served in all_served])


def index(registry: Registry, *, ready: bool) -> list[OipIndexEntry]:
    """Every model that is, was to be, or is about to be served; only those that answer, where `ready`."""
    rows = [
        OipIndexEntry(
            name=served.name,
            version=VERSION,
            state="UNAVAILABLE" if served.trouble else "READY",
            reason=served.trouble or "",
        )
        for served in registry.named
    ]
    rows += [
        OipIndexEntry(name=served.name, version=served.bundle.digest[:12], state="UNLOADING", reason="")
        for served in registry.leaving
    ]
    rows += [
        OipIndexEntry(name=name, version="", state="UNAVAILABLE", reason=reason)
        for name, reason in registry.failed.items()
        if name != registry.loading
    ]
    if registry.loading is not None:
        rows.append(OipIndexEntry(name=registry.loading, version="", state="LOADING", reason=""))
    return [row for row in rows if row.state == "READY"] if ready else rows


def about(served: Served, version: str, id: str | None, warnings: list[str]) -> dict[str, Any]:
    """What stands before an answer's outputs."""
    parameters: dict[str, str] = {"digest": served.bundle.digest[:12]}
    if warnings:
        parameters["warnings"] = "; ".join(dict.fromkeys(warnings))
    head: dict[str, Any] = {"model_name": served.name, "model_version": version}
    return {**head, **({} if id is None else {"id": id}), "parameters": parameters}


def _tensor(tensor: Tensor) -> OipTensor:
    return OipTensor(name=tensor.name, datatype=tensor.datatype, shape=[*tensor.shape])


def _config(tensor: Tensor, *, optional: bool = False) -> OipConfigTensor:
    return OipConfigTensor(name=tensor.name, data_type=tensor.config, dims=[*tensor.shape], optional=optional)


def _statistics(served: Served, version: str) -> OipModelStatistics:
    did = served.statistics
    return OipModelStatistics(
        name=served.name,
        version=version,
        last_inference=round((did.latest or 0) * 1000),
        inference_count=did.images,
        execution_count=did.batches,
        inference_stats=OipInferenceStatistics(
            success=_total(did.succeeded),
            fail=_total(did.failed),
            queue=_total(did.queue),
            compute_input=_total(did.decoded),
            compute_infer=_total(did.computed),
            compute_output=_total(did.answered),
            cache_hit=_total(did.kept),
            cache_miss=_total(did.passed),
        ),
    )


def _total(total: Total) -> OipTotal:
    return OipTotal(count=total.count, ns=total.ns)
