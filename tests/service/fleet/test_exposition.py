"""Metrics of several servers as one's: what is added, what is the largest, what the first says; read by Prometheus' own
parser."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.fleet.exposition import counts, labelled, merged


def server(requests: dict[str, int], waiting: int, oldest_s: float, seconds: list[float], drift: float) -> str:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    r = CollectorRegistry()
    counter = Counter("tessera_requests", "Requests \\ answered\nall of them", ["route"], registry=r)
    for route, count in requests.items():
        counter.labels(route).inc(count)
    Gauge("tessera_requests_waiting", "Images", registry=r).set(waiting)
    Gauge("tessera_oldest_request_seconds", "Age", registry=r).set(oldest_s)
    Gauge("tessera_model_info", "Models", ["name"], registry=r).labels("a b").set(1)
    Gauge("tessera_cluster_drift", "Drift", ["model"], registry=r).labels("street").set(drift)
    Gauge("tessera_unfamiliar_share", "Strangers", ["model"], registry=r).labels("street").set(drift / 2)
    histogram = Histogram("tessera_stage_seconds", "Time", ["stage"], buckets=(0.1, 1), registry=r)
    for value in seconds:
        histogram.labels("crf").observe(value)
    return generate_latest(r).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


ONE = server({"/segment": 3, 'with "quotes" and spaces': 1}, 2, 0.5, [0.05, 0.5], 0.25)
OTHER = server({"/segment": 4, "/jobs": 1e15}, 5, 4.5, [0.5, 5], 0.75)


def test_one_server_is_what_it_says() -> None:
    assert samples(merged([ONE])) == samples(ONE)
    assert {family.name: (family.type, family.documentation) for family in text_string_to_metric_families(ONE)} == {
        family.name: (family.type, family.documentation) for family in text_string_to_metric_families(merged([ONE]))
    }


def test_counts_are_added_and_ages_and_facts_are_not() -> None:
    one, other, both = samples(ONE), samples(OTHER), samples(merged([ONE, OTHER]))
    assert both.keys() == one.keys() | other.keys()
    largest = {"tessera_oldest_request_seconds": 4.5, "tessera_model_info": 1, "tessera_cluster_drift": 0.25}
    largest["tessera_unfamiliar_share"] = 0.125
    for key, value in both.items():
        assert value == largest.get(key[0], one.get(key, 0) + other.get(key, 0)), key


def test_of_what_must_hold_of_all_the_worst_counts_and_a_device_is_there_once() -> None:
    def told(ready: int, started: int) -> str:
        r = CollectorRegistry()
        Gauge("tessera_ready", "Ready", registry=r).set(ready)
        Gauge("process_start_time_seconds", "Start", registry=r).set(started)
        Gauge("tessera_device_memory_bytes", "Memory", ["device"], registry=r).labels("0").set(80)
        return generate_latest(r).decode()

    both = samples(merged([told(1, 1000), told(0, 2000), told(1, 1500)]))
    assert sorted(both.values()) == [0, 80, 2000]


def test_every_family_is_in_one_piece() -> None:
    text = merged([ONE, OTHER])
    assert text.count("# TYPE") == 7
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))


def test_of_one_that_is_gone_what_grows_stays() -> None:
    left = samples(counts(ONE))
    assert ("tessera_requests_total", (("route", "/segment"),)) in left
    assert not [key for key in left if key[0] in ("tessera_requests_waiting", "tessera_model_info")]
    both = samples(merged([OTHER, counts(ONE)]))
    assert both["tessera_requests_waiting", ()] == 5
    assert both["tessera_stage_seconds_count", (("stage", "crf"),)] == 4


def test_with_a_label_more_nobody_is_added_to_another() -> None:
    one, other = labelled(ONE, "replica", "a"), labelled(OTHER, "replica", "b")
    both = samples(merged([one, other]))
    assert len(both) == len(samples(ONE)) + len(samples(OTHER))
    mine = ("replica", "a")
    kept = {
        (name, tuple(sorted({*labels} - {mine}))): value for (name, labels), value in both.items() if mine in labels
    }
    assert kept == samples(ONE)
