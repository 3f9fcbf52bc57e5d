"""Prometheus metrics: what is counted.

Knows nothing of where the numbers come from; each app has a registry of its own.
"""

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from models.region_stats import Area
from service.nvml import Device
from service.timings import Timings

# From a tiny network on a GPU to a dense CRF on a busy machine.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def tessera_version() -> str:
    """The installed version, or `unknown` in a bare checkout."""
    return _version("tessera-segmentation")


def _version(*distributions: str) -> str:
    """Of the first that is installed: what imports it may be another, and importing it to ask costs memory."""
    for distribution in distributions:
        with suppress(PackageNotFoundError):
            return version(distribution)
    return "unknown"


class Metrics:
    """The counters and histograms of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for every counter that nobody reads
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("tessera_requests", "Requests answered", ["route", "code"], registry=r)
        self.refused = Counter("tessera_refused", "Requests refused or dropped", ["reason"], registry=r)
        self.images = Counter("tessera_images", "Images segmented", registry=r)
        self.unrefined = Counter("tessera_unrefined", "Images whose edges were not refined in time", registry=r)
        self.batches = Counter("tessera_batches", "Batches run", registry=r)
        self.batch_images = Histogram(
            "tessera_batch_images",
            "Images in a batch: passes of the network",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=r,
        )
        self.dispatch = Counter("tessera_batch_dispatch", "Batches by why they were closed", ["reason"], registry=r)
        self.cache_hits = Counter("tessera_cache_hits", "Images that needed no pass of their own", registry=r)
        self.cache_misses = Counter("tessera_cache_misses", "Images that did", registry=r)
        self.stage = Histogram("tessera_stage_seconds", "Time in a stage", ["stage"], buckets=_SECONDS, registry=r)
        self.request = Histogram(
            "tessera_request_seconds", "Time to an answer", ["route"], buckets=_SECONDS, registry=r
        )
        self.margin = Histogram(
            "tessera_margin",
            "Mean margin of an image",
            buckets=[i / 20 for i in range(1, 21)],
            registry=r,
        )
        self.cluster_pixels = Counter(
            "tessera_cluster_pixels", "Pixels given to a cluster", ["model", "cluster"], registry=r
        )
        self.network_failures = Counter(
            "tessera_network_failures",
            "Networks that hung, died or failed for good, and images whose scores were not finite",
            ["model", "reason"],
            registry=r,
        )
        self.loop_lag = Histogram(
            "tessera_event_loop_lag_seconds",
            "How late the event loop comes to what is due, once a second",
            buckets=_SECONDS,
            registry=r,
        )
        self.jobs = Gauge("tessera_jobs", "Jobs that are kept", ["state"], registry=r)
        self.job_images = Counter("tessera_job_images", "Images of jobs that are settled", ["outcome"], registry=r)
        self.model = Gauge("tessera_model_info", "Models that serve", ["name", "digest", "provider"], registry=r)
        # Looking a label's counter up costs more than counting.
        self._pixels = lru_cache(4096)(lambda model, cluster: self.cluster_pixels.labels(model, str(cluster)))
        self._stage = lru_cache(64)(self.stage.labels)
        self._requests = lru_cache(1024)(lambda route, status: self.requests.labels(route, str(status)))
        self._request = lru_cache(256)(self.request.labels)
        build = Gauge("tessera_build_info", "What runs", ["version", "python", "onnxruntime"], registry=r)
        build.labels(tessera_version(), platform.python_version(), _version("onnxruntime", "onnxruntime-gpu")).set(1)
        ProcessCollector(registry=r)  # process_…: memory, processor time, open files, the start; on Linux

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when Prometheus asks; NaN where a disk does not answer."""

        def asked() -> float:
            with suppress(OSError):
                return value()
            return math.nan

        Gauge(f"tessera_{name}", text, registry=self.registry).set_function(asked)

    def watch_devices(self, devices: Callable[[], Sequence[Device]]) -> None:
        """Gauges of every GPU, asked likewise. Workers of one host tell the same of it: its maximum, never a sum."""
        self.registry.register(_Devices(devices))

    def asked(self, hit: bool) -> None:
        """Count an image by whether the network's answer was there already."""
        (self.cache_hits if hit else self.cache_misses).inc()

    def batched(self, size: int, reason: str) -> None:
        """Count a batch, and why it was not larger."""
        self.batches.inc()
        self.batch_images.observe(size)
        self.dispatch.labels(reason).inc()

    def segmented(
        self, model: str, areas: Iterable[Area], timings: Timings, *, refined: bool | None, margin: float | None
    ) -> None:
        """Count a finished image.

        refined  whether its edges were refined; None: nobody asked for it
        margin   its mean, where it was taken
        """
        self.images.inc()
        if refined is False:
            self.unrefined.inc()
        for area in areas:
            self._pixels(model, area.id).inc(area.pixels)
        for stage, ms in timings.so_far().items():
            if stage != "crf" or refined:
                _observe(self._stage(stage), ms / 1000)
        if margin is not None:
            _observe(self.margin, margin)

    def answered(self, route: str, status: int, took_s: float) -> None:
        """Count a request."""
        self._requests(route, status).inc()
        _observe(self._request(route), took_s)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Devices(Collector):
    def __init__(self, devices: Callable[[], Sequence[Device]]) -> None:
        self._devices = devices

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        used, total, utilization = families = self._families()
        for device in self._devices():
            labels = [str(device.index), device.name]
            used.add_metric(labels, device.used_bytes)
            total.add_metric(labels, device.total_bytes)
            if device.utilization is not None:
                utilization.add_metric(labels, device.utilization)
        return iter(families)

    @staticmethod
    def _families() -> list[GaugeMetricFamily]:
        labels = ["device", "name"]
        return [
            GaugeMetricFamily("tessera_device_memory_used_bytes", "Of a GPU, by everybody on it", labels=labels),
            GaugeMetricFamily("tessera_device_memory_bytes", "That a GPU has", labels=labels),
            GaugeMetricFamily("tessera_device_utilization_ratio", "Of the time a kernel ran on a GPU", labels=labels),
        ]


def _observe(histogram: Histogram, value: float) -> None:
    """Counts a number; one that is none would make the sum of all of them NaN for good."""
    if math.isfinite(value):
        histogram.observe(value)
