"""Prometheus' rules and Grafana's board: every query names what /metrics has, and a real Prometheus answers it."""

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.io.encode import encode
from models.manifest import Familiarity
from service import cli
from tests.integration.promql import names
from tests.service.fakes import free_port, wait_until
from tests.service.jobs_of import ZIP
from tests.service.process import ask, process
from tests.tiny import bands, write_tiny_bundle

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
EVERYWHERE = {"instance", "job"}  # Prometheus adds them
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
SUFFIXES = {
    "counter": {"_total": set()},
    "gauge": {"": set()},
    "histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()},
}
# Queries that a healthy server on a processor leaves empty, and why.
EMPTY = {
    "tessera_device_utilization_ratio": "there is no NVIDIA driver",
    "tessera_device_memory_used_bytes": "there is no NVIDIA driver",
    "tessera_canary_answers_total": "there is no canary",
    "tessera_canary_comparisons_total": "there is no canary",
    "tessera_canary_agreement": "there is no canary",
}


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "tessera.json").read_text())
    return found


def board_queries() -> list[tuple[str, str]]:
    """Every panel's title with each of its queries."""
    return [(panel["title"], target["expr"]) for panel in board()["panels"] for target in panel.get("targets", [])]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path) -> dict[str, set[str]]:
    """The labels of every series that `tessera serve` may tell, by its name; a GPU is there."""
    states: list[Any] = []

    class Served:
        started = True

        def __init__(self, config: Any, state: Any, *others: Any, **settings: Any) -> None:
            state.runtime.close()
            state.metrics.watch_devices(list)
            states.append(state)

        def run(self, *sockets: Any) -> None:
            pass

    monkeypatch.setattr(cli, "Server", Served)
    monkeypatch.setattr(cli.binding, "check_free", lambda host, port: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setenv("TESSERA_STATE", str(tmp_path))
    cli.run(bundle=[tiny_bundle])
    (state,) = states
    state.registry.show()
    found: dict[str, set[str]] = {name: set(labels) for name, labels in OF_PROMETHEUS.items()}
    for collector in state.metrics.registry._collector_to_names:
        described = getattr(collector, "_labelnames", None)
        for family in collector.collect() if described is None else collector.describe():
            labels = described if described is not None else getattr(family, "_labelnames", ())
            for suffix, more in SUFFIXES.get(family.type, {}).items():
                found[family.name + suffix] = {*labels, *more}
    return found


def unknown(query: str, known: dict[str, set[str]]) -> list[str]:
    """What a query names that no series has."""
    said = names(query)
    wrong = [name for name, _ in said.metrics if name not in known]
    wrong += [f"{name}{{{label}}}" for name, by in said.metrics for label in by - known.get(name, by) - EVERYWHERE]
    labels = EVERYWHERE.union(*(known.get(name, set()) for name, _ in said.metrics))
    return wrong + [f"by ({label})" for label in said.grouped - labels]


def test_every_query_names_metrics_and_labels_that_are_told(known: dict[str, set[str]]) -> None:
    queries = [*board_queries(), *((rule["alert"], rule["expr"]) for rule in rules())]
    assert len(queries) > 50
    assert {title: wrong for title, query in queries if (wrong := unknown(query, known))} == {}
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            assert unknown(f"count by ({label}) ({selector})", known) == []


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(tessera_request_total[5m])", ["tessera_request_total"]),
        ("tessera_stage_seconds", ["tessera_stage_seconds"]),
        ('tessera_refused_total{why="memory"}', ["tessera_refused_total{why}"]),
        ("sum by (stage) (tessera_ready)", ["by (stage)"]),
        ("tessera_ready and on (job, pod) up", ["by (pod)"]),
        ('sum by (le, instance) (rate(tessera_stage_seconds_bucket{stage=~"crf"}[$__rate_interval]))', []),
        ('label_replace(up, "a", "$1", "job", "(.*)") * 2 offset 5m', []),
    ],
)
def test_what_no_series_has_is_found(query: str, wrong: list[str], known: dict[str, set[str]]) -> None:
    assert unknown(query, known) == wrong


def test_the_board_is_what_its_code_says() -> None:
    made = runpy.run_path(str(GRAFANA / "board.py"))
    assert json.dumps(made["board"](), indent=1) + "\n" == made["BOARD"].read_text()  # python deploy/grafana/board.py


def test_panels_do_not_overlap_and_say_what_they_tell() -> None:
    panels = board()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.slow
def test_grafanas_own_types_keep_all_of_the_board() -> None:
    needed = "pip install 'grafana-foundation-sdk==1769699379!11.6.0'"
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=needed)
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    read = json.loads(encoder.JSONEncoder(sort_keys=True).encode(dashboard.Dashboard.from_json(board())))
    assert kept(board(), read) == board()


def kept(given: Any, read: Any) -> Any:
    """Of what was read, what stood in what was given: types fill in what they have defaults for."""
    if isinstance(given, dict):
        return {key: kept(value, read[key]) for key, value in given.items() if key in read}
    if isinstance(given, list) and len(given) == len(read):
        return [kept(one, other) for one, other in zip(given, read, strict=True)]
    return read


def test_what_is_provisioned_fits_together() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tessera.yml").read_text())["providers"]
    assert urllib.parse.urlsplit(source["url"]).hostname in compose
    folders = {volume.split(":")[1] for volume in compose["grafana"]["volumes"]}
    assert provider["options"]["path"] in folders
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/tessera.json"
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert port in compose[name]["command"]
    assert name in re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", compose[name]["environment"]["TESSERA_HOSTS"]).split(",")
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert [*config["rule_files"]] == ["alerts.yml"]


def test_every_alert_has_a_runbook_and_is_tested_both_ways() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    sections = {heading.lower(): text for heading, text in re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", page, re.M | re.S)}
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = [rule["alert"] for rule in rules()]
    assert len(set(alerts)) == len(alerts)
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/monitoring.md"
        assert anchor == rule["alert"].lower()
        for part in ("means", "Look at", "Do"):
            assert part in sections[anchor], f"{rule['alert']}: {part}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        fires = {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == rule["alert"]}
        assert fires == {True, False}, rule["alert"]
    assert {heading for heading in sections if heading.startswith("tessera")} == {alert.lower() for alert in alerts}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
@pytest.mark.parametrize(
    "check",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
)
def test_promtool_takes_the_rules_and_they_fire_when_they_should(check: tuple[str, ...]) -> None:
    told = subprocess.run(["promtool", *check], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus")
def test_a_prometheus_that_asks_a_server_answers_every_query(tmp_path: Path) -> None:
    known = write_tiny_bundle(tmp_path / "tiny", familiarity=Familiarity(quantiles=(0.1, 0.3, 0.5), threshold=0.15))
    with (
        process(known.path, tmp_path / "state", TESSERA_ACCESS_LOG="false") as (_, port),
        asked(port) as failed,
        prometheus(port, tmp_path) as answer,
    ):
        wait_until(
            lambda: bool(failed) or len(answer("count(tessera_cluster_drift)")) == 1, 60
        )  # fifty images were seen
        queries = [(title, filled(query)) for title, query in board_queries()]
        empty: dict[str, list[str]] = {}

        def all_answered() -> bool:
            empty.clear()
            assert failed == []
            for title, query in queries:
                if not answer(query) and not any(name in query for name in EMPTY):
                    empty.setdefault(title, []).append(query)
            return not empty

        try:
            wait_until(all_answered, 60)
        except AssertionError:
            pytest.fail(f"no answer to {json.dumps(empty, indent=1)}")
        for name in EMPTY:  # or the reason holds no longer
            assert any(name in query and not answer(query) for _, query in queries), name
        for title, query in queries:
            for found in answer(query):
                assert found["value"][1] != "NaN" or "histogram_quantile" in query or " / " in query, (title, query)
        assert share_of_clusters(answer) == pytest.approx(1.0)
        wait_until(lambda: all(rule["health"] == "ok" for rule in evaluated(answer)), 30)
        assert {rule["name"] for rule in evaluated(answer)} == {rule["alert"] for rule in rules()}
        firing = {rule["name"] for rule in evaluated(answer) if rule["state"] == "firing"}
        assert firing == set()
        up = answer('up{job="tessera"}')
        assert [found["value"][1] for found in up] == ["1"]


def filled(query: str) -> str:
    """As Grafana fills in its variables."""
    return query.replace("$__rate_interval", "15s").replace('"$instance"', '".+"').replace('"$model"', '".+"')


def share_of_clusters(answer: Any) -> float:
    (query,) = (query for title, query in board_queries() if title == "Share of the pixels by cluster")
    return sum(float(found["value"][1]) for found in answer(filled(query)))


def evaluated(answer: Any) -> list[dict[str, Any]]:
    return [rule for group in answer.get("/api/v1/rules")["groups"] for rule in group["rules"]]


class Answers:
    """Of a Prometheus: a query's series, or what one of its addresses has."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self, query: str) -> list[dict[str, Any]]:
        return list(self.get("/api/v1/query?" + urllib.parse.urlencode({"query": query}))["result"])

    def get(self, path: str) -> dict[str, Any]:
        status, body = ask(self._port, "GET", path)
        assert status == 200, (path, body)
        return dict(json.loads(body)["data"])


@contextmanager
def prometheus(target: int, folder: Path) -> Iterator[Answers]:
    """One that asks the server at a port, every second, by the configuration and the rules of deploy/."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = config["scrape_configs"][:1]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"localhost:{target}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        running = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"},
        )  # fmt: skip
    try:
        wait_until(lambda: running.poll() is None and is_ready(port), 30)
        yield Answers(port)
    finally:
        running.terminate()
        running.wait(20)


def is_ready(port: int) -> bool:
    try:
        return ask(port, "GET", "/-/ready")[0] == 200
    except OSError:
        return False


@contextmanager
def asked(port: int) -> Iterator[list[Exception]]:
    """Around it, the server is asked for a bit of everything, again and again; what goes wrong is in the list."""
    over, failed = threading.Event(), list[Exception]()

    def go_on() -> None:
        number = 0
        try:
            while not over.wait(0.02):
                number += 1
                height, width = 40 + number % 48, 60 + number % 64
                image = encode(bands(height, width), "png")
                for query in ("", "format=png", "crf=true", "format=geojson&k=3")[: 1 + number % 4]:
                    assert ask(port, "POST", f"/segment?{query}", image)[0] == 200
                if number % 20 == 1:
                    assert ask(port, "POST", "/jobs?format=png", ZIP)[0] == 202
                if number % 8 or number > 400:  # a refusal is a line in a log that nobody reads meanwhile
                    continue
                assert ask(port, "POST", "/segment?k=no", image)[0] == 422
                assert ask(port, "POST", "/segment", b"no image")[0] == 400
                with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
                    stranger.sendall(b"no request\r\n\r\n")
                    assert stranger.recv(12).endswith(b"400")
        except Exception as error:
            failed.append(error)

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        yield failed
    finally:
        over.set()
        asking.join(30)
    assert failed == []
