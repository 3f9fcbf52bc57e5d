"""What is counted, in Prometheus' words.

Knows nothing of where the numbers come from; each app has a registry of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

if TYPE_CHECKING:
    from service.pipeline import Result

# From a tiny network on a GPU to a dense CRF on a busy machine.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def tessera_version() -> str:
    """The installed version, or `unknown` in a bare checkout."""
    try:
        return version("tessera-segmentation")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for every counter that nobody reads
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("tessera_requests", "Requests answered", ["route", "code"], registry=r)
        self.refused = Counter("tessera_refused", "Requests refused or dropped", ["reason"], registry=r)
        self.images = Counter("tessera_images", "Images segmented", registry=r)
        self.batches = Counter("tessera_batches", "Batches run", registry=r)
        self.batch_images = Histogram(
            "tessera_batch_images", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=r
        )
        self.stage = Histogram("tessera_stage_seconds", "Time in a stage", ["stage"], buckets=_SECONDS, registry=r)
        self.request = Histogram(
            "tessera_request_seconds", "Time to an answer", ["route"], buckets=_SECONDS, registry=r
        )
        self.margin = Histogram(
            "tessera_margin",
            "Mean margin of an image answered as JSON",
            buckets=[i / 20 for i in range(1, 21)],
            registry=r,
        )
        self.cluster_pixels = Counter(
            "tessera_cluster_pixels", "Pixels given to a cluster", ["model", "cluster"], registry=r
        )
        self.model = Gauge("tessera_model_info", "Models that serve", ["name", "digest", "provider"], registry=r)
        build = Gauge("tessera_build_info", "What runs", ["version", "python", "onnxruntime"], registry=r)
        build.labels(tessera_version(), platform.python_version(), onnxruntime.__version__).set(1)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when Prometheus asks."""
        Gauge(f"tessera_{name}", text, registry=self.registry).set_function(value)

    def batched(self, size: int) -> None:
        """Count a batch."""
        self.batches.inc()
        self.batch_images.observe(size)

    def segmented(self, model: str, result: Result) -> None:
        """Count a finished image."""
        self.images.inc()
        for area in result.areas:
            self.cluster_pixels.labels(model, str(area.id)).inc(area.pixels)
        for stage, ms in result.timings.items():
            if stage != "crf" or result.refined:
                self.stage.labels(stage).observe(ms / 1000)
        if result.margin is not None:
            self.margin.observe(float(result.margin.mean()))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
