"""Grafana's board of a Tessera server, as code: `python deploy/grafana/board.py` writes dashboards/tessera.json.

Knows nothing of how Grafana draws. A row is a question; a panel is a title, what it tells, a unit and its queries.
"""

import json
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parent / "dashboards" / "tessera.json"
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8

HERE = 'instance=~"$instance"'
ASKED = f'{HERE}, route!~"/livez|/readyz|/healthz|/metrics"'
FAILED = f'{ASKED}, code=~"5.."'
PICKED = f'{HERE}, model=~"$model"'
OURS = f'job="tessera", {HERE}'  # of what every program tells Prometheus, the server's


def rate(metric: str, labels: str = HERE) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(by: str, metric: str, labels: str = HERE) -> str:
    """The sum of a counter's rates over servers."""
    return f"sum by ({by}) ({rate(metric, labels)})" if by else f"sum({rate(metric, labels)})"


def gauge(of: str, by: str, metric: str, labels: str = HERE) -> str:
    """The `max`, `min`, `sum` or `count` of a gauge over servers."""
    return f"{of} by ({by}) ({metric}{{{labels}}})"


def quantile(q: float, by: str, histogram: str, labels: str = HERE) -> str:
    return f"histogram_quantile({q}, {total(f'{by}, le' if by else 'le', f'{histogram}_bucket', labels)})"


def mean(by: str, histogram: str) -> str:
    return f"{total(by, f'{histogram}_sum')} / {total(by, f'{histogram}_count')}"


def panel(kind: str, title: str, tells: str, unit: str, queries: dict[str, str], width: int, **defaults: Any) -> Any:
    """queries: legend → PromQL; defaults: of the field's configuration."""
    targets = [
        {
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            "range": True,
            "refId": ref,
        }
        for ref, (legend, expr) in zip("ABCDEFGH", queries.items(), strict=False)
    ]
    return {
        "type": kind,
        "title": title,
        "description": tells,
        "datasource": PROMETHEUS,
        "targets": targets,
        "gridPos": {"w": width, "h": HEIGHT, "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, **defaults}, "overrides": []},
    }


def series(
    title: str, tells: str, unit: str, queries: dict[str, str], *, width: int = 8, stack: str = "none", **defaults: Any
) -> Any:
    """Lines over time; stack="normal" has them on top of each other."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 0 if stack == "none" else 40,
        "showPoints": "never",
        "spanNulls": 60_000,
        "stacking": {"mode": stack, "group": "A"},
    }
    made = panel("timeseries", title, tells, unit, queries, width, custom=custom, **defaults)
    made["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return made


def stat(title: str, tells: str, unit: str, query: str, *bounds: tuple[str, float | None], **defaults: Any) -> Any:
    """One number; bounds: a color from each value on, the first from nothing."""
    steps = [{"color": color, "value": value} for color, value in bounds or (("text", None),)]
    made = panel(
        "stat", title, tells, unit, {"": query}, 4, thresholds={"mode": "absolute", "steps": steps}, **defaults
    )
    made["gridPos"]["h"] = 4
    made["options"] = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }
    return made


GREEN, ORANGE, RED = "green", "orange", "red"

ROWS: dict[str, list[Any]] = {
    "Now": [
        stat(
            "Ready",
            "Servers that say so on /readyz, of all that answer.",
            "percentunit",
            f"sum(tessera_ready{{{HERE}}}) / count(tessera_ready{{{HERE}}})",
            (RED, None),
            (GREEN, 1),
            max=1,
        ),
        stat("Requests", "A second, probes apart.", "reqps", total("", "tessera_requests_total", ASKED)),
        stat(
            "Slowest twentieth",
            "95 of 100 requests to /segment were answered faster.",
            "s",
            quantile(0.95, "", "tessera_request_seconds", f'{HERE}, route="/segment"'),
            (GREEN, None),
            (ORANGE, 2),
            (RED, 5),
        ),
        stat(
            "Not answered",
            "Requests answered with 500 to 599, of all: refused (503), too late (504), failed (500).",
            "percentunit",
            f"({total('', 'tessera_requests_total', FAILED)} or vector(0))"
            f" / {total('', 'tessera_requests_total', ASKED)}",
            (GREEN, None),
            (ORANGE, 0.01),
            (RED, 0.05),
        ),
        stat(
            "Oldest image",
            "How long the image has been in the house that has been there longest.",
            "s",
            f"max(tessera_oldest_request_seconds{{{HERE}}})",
            (GREEN, None),
            (ORANGE, 10),
            (RED, 20),
        ),
        stat(
            "Alerts",
            "That fire now; http://localhost:9090/alerts has them by name.",
            "none",
            'count(ALERTS{alertstate="firing", alertname=~"Tessera.+"}) or vector(0)',
            (GREEN, None),
            (RED, 1),
        ),
    ],
    "Traffic": [
        series(
            "Requests by route",
            "A second, probes apart.",
            "reqps",
            {"{{route}}": total("route", "tessera_requests_total", ASKED)},
            stack="normal",
        ),
        series(
            "Requests by answer",
            "HTTP status; 499 are clients that left.",
            "reqps",
            {"{{code}}": total("code", "tessera_requests_total", ASKED)},
            stack="normal",
        ),
        series(
            "Images",
            "Segmented, those of jobs included; and those of jobs.",
            "ops",
            {
                "all": total("", "tessera_images_total"),
                "of jobs, {{outcome}}": total("outcome", "tessera_job_images_total"),
            },
        ),
        series(
            "Time to an answer",
            "Of POST /segment, from its first byte to its answer's last.",
            "s",
            {
                f"{name}": quantile(q, "", "tessera_request_seconds", f'{HERE}, route="/segment"')
                for name, q in (("half", 0.5), ("95 of 100", 0.95), ("99 of 100", 0.99))
            },
        ),
        series("Connections", "Open now.", "none", {"{{instance}}": gauge("sum", "instance", "tessera_connections")}),
        series(
            "Unread answers",
            "Bytes that clients have not taken yet.",
            "bytes",
            {"{{instance}}": gauge("sum", "instance", "tessera_unread_bytes")},
        ),
    ],
    "Latency by stage": [
        series(
            "Time of an image by stage",
            "The mean of each stage over all images, on top of each other: what an image's time is made of.",
            "s",
            {
                "{{stage}}": f"{total('stage', 'tessera_stage_seconds_sum')}"
                f" / ignoring(stage) group_left() {total('', 'tessera_images_total')}"
            },
            width=12,
            stack="normal",
        ),
        series(
            "Slowest twentieth by stage",
            "95 of 100 images were through each stage faster.",
            "s",
            {"{{stage}}": quantile(0.95, "stage", "tessera_stage_seconds")},
            width=12,
        ),
    ],
    "Queue": [
        series(
            "Images in the house",
            "That wait for the network, and that are in it.",
            "none",
            {
                "waiting, {{instance}}": gauge("sum", "instance", "tessera_requests_waiting"),
                "running, {{instance}}": gauge("sum", "instance", "tessera_requests_running"),
            },
        ),
        series(
            "Oldest image",
            "How long it has been in the house.",
            "s",
            {"{{instance}}": gauge("max", "instance", "tessera_oldest_request_seconds")},
        ),
        series(
            "Event loop",
            "How late the server itself comes to what is due.",
            "s",
            {
                "mean": mean("", "tessera_event_loop_lag_seconds"),
                "99 of 100": quantile(0.99, "", "tessera_event_loop_lag_seconds"),
            },
        ),
    ],
    "Refusals": [
        series(
            "Refused, by reason",
            "A second. docs/monitoring.md has what each reason means.",
            "reqps",
            {"{{reason}}": total("reason", "tessera_refused_total")},
            width=12,
            stack="normal",
        ),
        series(
            "Edges not refined in time",
            "Images whose CRF was left out, a second; and those whose was not.",
            "ops",
            {
                "left out": total("", "tessera_unrefined_total"),
                "refined": total("", "tessera_stage_seconds_count", f'{HERE}, stage="crf"'),
            },
            width=12,
        ),
    ],
    "Batches": [
        series(
            "Images in a batch",
            "1 on a processor, where larger ones only cost.",
            "none",
            {
                "mean": mean("", "tessera_batch_images"),
                "99 of 100 at most": quantile(0.99, "", "tessera_batch_images"),
            },
        ),
        series("Batches", "That the networks ran, a second.", "ops", {"all": total("", "tessera_batches_total")}),
        series(
            "Why a batch was closed",
            "Batches a second: full, or nobody else waited.",
            "ops",
            {"{{reason}}": total("reason", "tessera_batch_dispatch_total")},
            stack="normal",
        ),
    ],
    "Cache": [
        series(
            "Images that needed no pass of their own",
            "The same image again, with other options or by others at the same time.",
            "percentunit",
            {
                "share": f"{total('', 'tessera_cache_hits_total')} / ({total('', 'tessera_cache_hits_total')}"
                f" + {total('', 'tessera_cache_misses_total')})"
            },
            width=12,
            max=1,
        ),
        series(
            "Held for that",
            "Bytes, of TESSERA_CACHE_BYTES.",
            "bytes",
            {"{{instance}}": gauge("sum", "instance", "tessera_cache_bytes")},
            width=12,
        ),
    ],
    "Device": [
        series(
            "GPU: busy",
            "Of the time a kernel ran. Empty where there is no NVIDIA driver.",
            "percentunit",
            {
                "{{instance}} {{device}} {{name}}": gauge(
                    "max", "instance, device, name", "tessera_device_utilization_ratio"
                )
            },
            max=1,
        ),
        series(
            "GPU: memory",
            "Taken, by everybody on it, of what it has. Empty where there is no NVIDIA driver.",
            "percentunit",
            {
                "{{instance}} {{device}} {{name}}": "max by (instance, device, name) ("
                f"tessera_device_memory_used_bytes{{{HERE}}} / tessera_device_memory_bytes{{{HERE}}})"
            },
            max=1,
        ),
        series(
            "Processor",
            "Cores' worth of time the server takes.",
            "none",
            {"{{instance}}": total("instance", "process_cpu_seconds_total", OURS)},
        ),
        series(
            "Memory",
            "Resident, of the server's process.",
            "bytes",
            {"{{instance}}": gauge("sum", "instance", "process_resident_memory_bytes", OURS)},
        ),
        series(
            "Open files",
            "Of those the system allows.",
            "percentunit",
            {"{{instance}}": f"max by (instance) (process_open_fds{{{OURS}}} / process_max_fds{{{OURS}}})"},
            max=1,
        ),
        series(
            "Models, and where they run",
            "cuda, or cpu; docs/monitoring.md says what to do where that is wrong.",
            "none",
            {"{{name}} {{digest}} on {{provider}}": gauge("count", "name, digest, provider", "tessera_model_info")},
            stack="normal",
        ),
    ],
    "Familiarity and drift": [
        series(
            "Drift",
            "How far the shares of clusters of the last 500 images are from those of the training: 0 the same,"
            " 1 nothing in common. Empty for a model's first 50 images.",
            "percentunit",
            {"{{model}}, {{instance}}": gauge("max", "model, instance", "tessera_cluster_drift")},
            width=8,
            max=1,
        ),
        series(
            "Unfamiliar images",
            "Share of the last 500 images of which the network is less sure than of 98 % of its training images: 2 %"
            " are expected. Empty for a model's first 50 images, and for bundles that do not say.",
            "percentunit",
            {"{{model}}, {{instance}}": gauge("max", "model, instance", "tessera_unfamiliar_share")},
            width=8,
            max=1,
        ),
        series(
            "Margin",
            "How clearly pixels were decided, the mean of an image: where it falls below its usual level, what is shown"
            " is unlike the training.",
            "none",
            {
                "mean": mean("", "tessera_margin"),
                "one in ten is below": quantile(0.1, "", "tessera_margin"),
            },
            width=8,
            max=1,
        ),
    ],
    "Cluster shares": [
        series(
            "Share of the pixels by cluster",
            "Of each model: which clusters what is served falls into. GET /clusters has their names.",
            "percentunit",
            {
                "{{model}} {{cluster}}": total("model, cluster", "tessera_cluster_pixels_total", PICKED)
                + f" / ignoring(cluster) group_left() {total('model', 'tessera_cluster_pixels_total', PICKED)}"
            },
            width=24,
            stack="normal",
            max=1,
        )
    ],
    "Canary": [
        series(
            "Who answered",
            "Images a second of who named no model, while there is a canary.",
            "ops",
            {"{{by}}": total("by", "tessera_canary_answers_total")},
            stack="normal",
        ),
        series(
            "Agreement with the default",
            "Share of the compared pixels on which both say the same, clusters matched one to one.",
            "percentunit",
            {"{{model}}, {{instance}}": gauge("max", "model, instance", "tessera_canary_agreement")},
            max=1,
        ),
        series(
            "Compared, and not answered",
            "Images of the canary that the default saw too, or had no time for; and those that the default answered"
            " in its place.",
            "ops",
            {
                "{{outcome}}": total("outcome", "tessera_canary_comparisons_total"),
                "not answered": total("", "tessera_canary_failures_total"),
            },
        ),
    ],
    "Jobs": [
        series(
            "Jobs by state",
            "That are kept.",
            "none",
            {"{{state}}": gauge("sum", "state", "tessera_jobs")},
            stack="normal",
        ),
        series(
            "Images of jobs",
            "A second.",
            "ops",
            {"{{outcome}}": total("outcome", "tessera_job_images_total")},
        ),
        series(
            "Room for jobs",
            "Bytes free on their disk; with less than TESSERA_JOB_FREE_BYTES they pause.",
            "bytes",
            {"{{instance}}": gauge("min", "instance", "tessera_jobs_free_bytes")},
        ),
    ],
    "What broke": [
        series(
            "Networks that failed",
            "Hung, died, failed, or not finite, since the server started.",
            "none",
            {"{{model}}: {{reason}}": gauge("sum", "model, reason", "tessera_network_failures_total")},
            width=8,
        ),
        series(
            "Starts",
            "In the last hour.",
            "none",
            {"{{instance}}": f"max by (instance) (changes(process_start_time_seconds{{{OURS}}}[1h]))"},
            width=8,
        ),
        series(
            "Names that cannot be kept",
            "1 while writing the state folder fails.",
            "none",
            {"{{instance}}": f"1 - min by (instance) (tessera_names_kept{{{HERE}}})"},
            width=8,
            max=1,
        ),
    ],
}


def variable(name: str, label: str, query: str) -> Any:
    """Values of a label, all of them unless somebody picks."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def laid_out() -> list[Any]:
    """The panels of all rows, left to right and down."""
    panels: list[Any] = []
    x = y = tall = 0
    for title, row in ROWS.items():
        y, x = y + tall, 0
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"w": WIDTH, "h": 1, "x": 0, "y": y},
            }
        )
        y, tall = y + 1, 0
        for made in row:
            place = made["gridPos"]
            if x + place["w"] > WIDTH:
                x, y = 0, y + tall
            panels.append({**made, "gridPos": {**place, "x": x, "y": y}})
            x, tall = x + place["w"], place["h"]
    return [{"id": number, **made} for number, made in enumerate(panels, 1)]


def board() -> dict[str, Any]:
    """The whole of it, in Grafana's classic model."""
    return {
        "uid": "tessera",
        "title": "Tessera",
        "tags": ["tessera"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                variable("instance", "Server", "label_values(tessera_build_info, instance)"),
                variable("model", "Model", 'label_values(tessera_cluster_pixels_total{instance=~"$instance"}, model)'),
            ]
        },
        "panels": laid_out(),
    }


if __name__ == "__main__":
    BOARD.write_text(json.dumps(board(), indent=1) + "\n")
