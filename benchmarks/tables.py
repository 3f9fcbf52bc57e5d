"""Runs of the harness → medians with their ranges → one table.

Knows nothing of servers or processes: dictionaries in, text out.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]  # what the harness writes of one server in one round


@dataclass(frozen=True)
class Summary:
    """One server over its rounds.

    numbers  figure → {"median", "min", "max"}; `errors` and `requests` are sums, `rounds` a count
    """

    numbers: dict[str, Any]

    def median(self, figure: str) -> float | None:
        """The median of a figure, None where it was not measured."""
        spread = self.numbers.get(figure)
        return None if spread is None else float(spread["median"])

    def show(self, figure: str, digits: int) -> str:
        """`median [min–max]`, the range only where there are several; – where nothing was measured."""
        spread = self.numbers.get(figure)
        if spread is None:
            return "–"
        middle, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
        return middle if low == high else f"{middle} [{low}–{high}]"


def summarize(runs: Sequence[Run]) -> Summary:
    """The rounds of one server. Load figures are called `c=32 ratio`, `c=32 p99/p50` and so on."""
    values: dict[str, list[float]] = {}

    def add(figure: str, value: float | None) -> None:
        if value is not None:
            values.setdefault(figure, []).append(float(value))

    errors = requests = 0
    for run in runs:
        for phase, load in run["loads"].items():
            name = phase.removeprefix("closed ")
            errors += load["errors"]
            requests += load["n"] + load["errors"]
            add(f"{name} ratio", load["ratio"])
            add(f"{name} per_s", load["thr"])
            add(f"{name} cpu_ms", load["srv_cpu_ms_per_req"])
            for figure in ("p50", "p95", "p99"):
                add(f"{name} {figure}_ms", load[figure])
            if load["p50"]:
                add(f"{name} p99/p50", load["p99"] / load["p50"])
        add("rss_mb", run["rss_mb"])
        add("start_s", run["start_s"])
        add("label_agree", run.get("label_agree"))
        add("label_agree_min", run.get("label_agree_min"))
        add("raw_per_s", run["raw"])
    numbers: dict[str, Any] = {
        figure: {"median": _short(statistics.median(v)), "min": _short(min(v)), "max": _short(max(v))}
        for figure, v in values.items()
    }
    return Summary({**numbers, "errors": errors, "requests": requests, "rounds": len(runs)})


def table(found: Mapping[str, Summary], *, overhead: bool) -> str:
    """Markdown: one line a server.

    overhead  the network costs next to nothing: requests and CPU milliseconds count, beside the best peer's
    """
    return _overhead(found) if overhead else _ratios(found)


def _ratios(found: Mapping[str, Summary]) -> str:
    phases = [phase for phase in ("c=1", "c=8", "c=32") if any(f"{phase} ratio" in s.numbers for s in found.values())]
    head = ["server", *(f"{phase}: ratio to raw" for phase in phases), "c=32: p99/p50", *_LAST]
    lines = [
        [name, *(s.show(f"{phase} ratio", 3) for phase in phases), s.show("c=32 p99/p50", 2), *_last(s)]
        for name, s in found.items()
    ]
    return _markdown(head, lines)


def _overhead(found: Mapping[str, Summary]) -> str:
    peers = [s for name, s in found.items() if not name.startswith(("ours", "sketch"))]
    rate = max((v for s in peers if (v := s.median("c=32 per_s"))), default=None)
    cpu = min((v for s in peers if (v := s.median("c=32 cpu_ms"))), default=None)
    head = ["server", "c=1: requests/s", "c=32: requests/s", "of the best peer", "CPU ms a request", "of the best peer"]
    lines = [
        [
            name,
            s.show("c=1 per_s", 0),
            s.show("c=32 per_s", 0),
            _relative(s.median("c=32 per_s"), rate),
            s.show("c=32 cpu_ms", 2),
            _relative(s.median("c=32 cpu_ms"), cpu),
            s.show("c=32 p99/p50", 2),
            *_last(s),
        ]
        for name, s in found.items()
    ]
    return _markdown([*head, "c=32: p99/p50", *_LAST], lines)


_LAST = ("errors", "RSS MB", "start s", "labels equal")


def _last(s: Summary) -> list[str]:
    return [
        f"{s.numbers['errors']}/{s.numbers['requests']}",
        s.show("rss_mb", 0),
        s.show("start_s", 1),
        s.show("label_agree", 4),
    ]


def _relative(value: float | None, best: float | None) -> str:
    return "–" if value is None or best is None else f"{value / best:.2f}"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
