"""What decides whether a run counts, and what is printed of it."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers, serving
from benchmarks.own_server import void
from benchmarks.tables import Run, summarize, table


def run(per_s: float, *, cpu_ms: float = 2.0, p99: float = 12.0, errors: int = 0) -> Run:
    load = {"ratio": per_s / 20, "thr": per_s, "srv_cpu_ms_per_req": cpu_ms, "p50": 10.0, "p95": 11.0, "p99": p99}
    load |= {"errors": errors, "n": 100}
    return {"loads": {"closed c=1": load, "closed c=32": load}, "rss_mb": 200.0, "start_s": 1.0, "raw": 20.0}


def test_a_run_is_void_when_its_network_did_not_run_for_every_image() -> None:
    assert void({"tessera_images_total": 40, "tessera_batch_images_sum": 40}, 40) is None
    shared = void({"tessera_images_total": 40, "tessera_batch_images_sum": 25}, 40)
    assert shared is not None
    assert "25 encoder passes for 40 images" in shared
    early = void({"tessera_images_total": 39, "tessera_batch_images_sum": 39}, 40)
    assert early is not None
    assert "too early" in early
    assert void({}, 1) is not None


def test_medians_ranges_and_errors_of_the_rounds() -> None:
    found = summarize([run(18), run(22, errors=3), run(19, p99=15.0)])
    assert found.numbers["c=32 ratio"] == {"median": 0.95, "min": 0.9, "max": 1.1}
    assert found.numbers["c=32 p99/p50"]["max"] == 1.5
    assert found.numbers["errors"] == 6
    assert found.numbers["requests"] == 606
    assert found.show("c=32 ratio", 2) == "0.95 [0.90–1.10]"
    assert found.show("label_agree", 4) == "–"


def test_overhead_is_told_beside_the_best_peer_and_sketches_are_none() -> None:
    found = {
        "ours": summarize([run(800, cpu_ms=1.5)]),
        "naive_sync": summarize([run(400, cpu_ms=3.0)]),
        "pytriton": summarize([run(300, cpu_ms=4.0)]),
        "sketch_b1": summarize([run(900, cpu_ms=1.0)]),
    }
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in table(found, overhead=True).splitlines()}
    assert "| 800 | 2.00 | 1.50 | 0.50 |" in lines["ours"]
    assert "| 300 | 0.75 | 4.00 | 1.33 |" in lines["pytriton"]


def test_a_failed_round_without_latencies_does_not_stop_the_table() -> None:
    broken = run(0.0, errors=9)
    for load in broken["loads"].values():
        load |= {"p50": None, "p95": None, "p99": None, "n": 0}
    assert "18/18" in table({"bentoml": summarize([broken])}, overhead=False)


def test_ours_runs_uncached_with_the_row_s_engine(tmp_path: Path) -> None:
    place = serving.Workplace(tmp_path, tmp_path, tmp_path / "tessera")
    given = serving.our_arguments(place, "ours-bf16", serving.Load("vit", 5, "1,8,32"), tmp_path / "out.json")
    settings = [given[i + 1] for i, part in enumerate(given) if part == "--env"]
    assert "TESSERA_CACHE_BYTES=0" in settings
    assert "TESSERA_ENGINE=openvino-bf16" in settings
    assert "--no-check" not in given
    assert f"--port {serving.PORT}" in given[given.index("--launch") + 1]


def test_who_is_not_installed_is_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "v_ray" / "lib" / "python3.11" / "site-packages" / "ray"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    place = serving.Workplace(tmp_path, tmp_path, tmp_path / "tessera")
    assert serving.contenders(place, ["rayserve", "pytriton"], "vit") == ["rayserve"]
    assert "pytriton: left out: not installed; `make peers`" in capsys.readouterr().out


def test_every_server_has_its_turn_in_every_round_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    def ran(place: serving.Workplace, name: str, load: serving.Load, round_: int, out: Path) -> str | None:
        turns.append(name)
        if name == "bentoml":
            return "exit 1"
        out.write_text('{"loads": {}}')
        return None

    monkeypatch.setattr(serving, "run_peer", ran)
    place = serving.Workplace(tmp_path, tmp_path, tmp_path / "tessera")
    names = ["naive_sync", "bentoml", "pytriton"]
    runs, trouble = serving.compare(place, names, serving.Load("vit", 1, "1"), 3)
    orders = [turns[i : i + 3] for i in range(0, 9, 3)]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert {name: len(each) for name, each in runs.items()} == {"naive_sync": 3, "bentoml": 0, "pytriton": 3}
    assert len(trouble) == 3


@pytest.mark.parametrize("begun", [signal.default_int_handler, signal.SIG_IGN], ids=["in front", "with an &"])
def test_a_harness_without_an_end_is_interrupted_and_may_end_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: Any
) -> None:
    script = tmp_path / "bench_peers.py"
    script.write_text(
        "import time\nfrom pathlib import Path\n"
        "try:\n    Path('began').touch()\n    time.sleep(60)\nfinally:\n    Path('ended').touch()\n"
    )
    monkeypatch.setattr(serving, "_LIMIT_S", 1.0)
    before = signal.signal(signal.SIGINT, begun)
    try:
        assert serving._harness([sys.executable, str(script)], tmp_path, {}) == "no result after 1 s"
        assert signal.getsignal(signal.SIGINT) is begun
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "began").exists() == (tmp_path / "ended").exists()


def test_the_shim_comes_after_the_docstring_once() -> None:
    source = '# a licence\n"""What it is.\n\nMore.\n"""\n\nimport abc\n'
    once = peers.shimmed(source)
    assert once.startswith('# a licence\n"""What it is.\n\nMore.\n"""\n')
    assert once.endswith("import abc\n")
    assert peers.shimmed(once) == once
    compile(once, "data.py", "exec")


def test_a_step_that_fails_is_skipped_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*command: str | Path) -> None:
        raise RuntimeError("exit 1: no such package")

    monkeypatch.setattr(peers, "_run", fails)
    assert peers.prepare(tmp_path / "tools" / "peers", tmp_path / "work", ["pytriton"]) == 7
    assert "pytriton: skipped: exit 1: no such package" in capsys.readouterr().out
