"""Our server and every installed peer on the same network, in one interleaved run.

    make peers                                                   once: environments, photos, networks
    python -m benchmarks.serving [--model vit|tiny|street] [--rounds 2] [--secs 5] [--only ours,naive_sync,…]

The harness (../shared/tools/peers) launches, checks labels and puts the load on; ratios are to the raw onnxruntime rate
that it measures beside every load. Each round has every server once, in another order. Ours runs with the cache and the
sharing of identical requests off, and its counters are read: unless its network ran once for every image it answered,
the run is void. Rows of ours are `ours` (onnxruntime) and `ours-ENGINE` for the other TESSERA_ENGINE. At the end, with
the cache on: what the repeat of an image with other options costs. The table is printed; medians with their ranges go
to benchmarks/results/serving-MODEL.json.

Knows nothing of how a server answers.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, peers
from benchmarks.own_server import command, counters, void
from benchmarks.repeat import Repeat, measure_repeat
from benchmarks.tables import Run, Summary, summarize, table
from models.bundle import Bundle
from models.errors import TesseraError
from service.settings import embedded

RESULTS = Path(__file__).parent / "results"
PORT = 8200
ENGINES = {  # row → TESSERA_ENGINE and the module that it needs
    "ours": ("onnxruntime", "onnxruntime"),
    "ours-auto": ("auto", "onnxruntime"),
    "ours-int8": ("onnxruntime-int8", "onnx"),
    "ours-openvino": ("openvino", "openvino"),
    "ours-bf16": ("openvino-bf16", "openvino"),
    "ours-cuda": ("cuda", "onnxruntime"),
}
_DEFAULT = ("ours", "ours-openvino", "naive_sync", "naive_async", "litserve_b8", "pytriton", "rayserve", "bentoml")
_POLL_S = 0.5  # well inside the seconds for which the harness leaves the server alone after its last load
_LIMIT_S = 280.0  # the harness's own limit for a peer, 300 s, would leave the peer running
_END_S = 30.0


@dataclass(frozen=True)
class Load:
    """What the harness is asked to do.

    secs  of each phase;  conc  clients of the closed loops;  open  fractions of the raw rate for the open loops
    """

    model: str
    secs: float
    conc: str
    open: str = ""


@dataclass
class Workplace:
    """Where things are: the harness, the work folder, our command; `only_last` holds what the counters said last."""

    harness: Path
    work: Path
    tessera: Path
    only_last: dict[str, float] = field(default_factory=dict)

    @property
    def client(self) -> Path:
        """The interpreter that runs the harness."""
        return self.work / "v" / "bin" / "python"

    @property
    def serving_python(self) -> Path:
        """The interpreter beside our command."""
        return self.tessera.with_name("python")

    def reference(self, model: str) -> Path:
        """The network whose raw rate, and labels where it has some, the harness takes."""
        if model == "street":
            return embedded()[0] / "encoder.onnx"
        return self.work / "models" / ("tiny_u8.onnx" if model == "tiny" else "labels_u8.onnx")

    def bundle(self, model: str) -> Path:
        """The same network as ours."""
        return embedded()[0] if model == "street" else self.work / "bundles" / model


def our_arguments(place: Workplace, row: str, load: Load, out: Path) -> list[str]:
    """What the harness is given to measure one row of ours."""
    engine, _ = ENGINES[row]
    bundle = place.bundle(load.model).resolve()
    arguments = {
        "--name": row,
        "--launch": f"{place.tessera.absolute()} serve --bundle {bundle} --port {PORT}",
        "--url": f"http://127.0.0.1:{PORT}/segment?format=png",
        "--field": "image",
        "--accept": "image/png",
        "--model": str(place.reference(load.model).resolve()),
        "--images": str((place.work / "data").resolve()),
        "--out": str(out),
        "--conc": load.conc,
        "--secs": str(load.secs),
    }
    env = {
        "TESSERA_CACHE_BYTES": "0",
        "TESSERA_ACCESS_LOG": "false",  # as the peers
        "TESSERA_ENGINE": engine,
        "TESSERA_STATE": str((place.work / "state").resolve()),
    }
    given = [part for pair in arguments.items() for part in pair] + [f"--open={load.open}"]
    given += [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
    if load.model == "street":  # the harness has no labels for it
        given += ["--no-check", "--size", str(min(Bundle.load(bundle).manifest.input.size))]
    return given


def run_ours(place: Workplace, row: str, load: Load, out: Path) -> str | None:
    """One round of one row of ours; why it is void, or None."""
    place.only_last = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(place, ended), daemon=True)
    watcher.start()
    try:
        harness = [str(place.client), str(place.harness / "bench_peers.py")]
        said = _harness([*harness, *our_arguments(place, row, load, out)], place.work, {})
    finally:
        ended.set()
        watcher.join()
    if not out.is_file():
        return said
    answered = sum(phase["n"] for phase in json.loads(out.read_text())["loads"].values())
    return void(place.only_last, answered)


def run_peer(place: Workplace, name: str, load: Load, round_: int, out: Path) -> str | None:
    """One round of one peer, by the harness's own script; why there is no result, or None."""
    env = {
        "MODEL": str(place.reference(load.model).resolve()),
        "SECS": str(load.secs),
        "CONC": load.conc,
        "OPEN": load.open,
        "TAG": load.model,
    }
    said = _harness(["bash", str(place.harness / "run_peers.sh"), str(round_), name], place.work, env)
    return None if out.is_file() else said


def _watch(place: Workplace, ended: threading.Event) -> None:
    """Keeps the newest counters of our server, until the harness has ended it."""
    while not ended.wait(_POLL_S):
        try:
            place.only_last = counters(PORT)
        except (OSError, ValueError):
            continue


def _harness(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> str:
    """Runs the harness; its last line, to be told where there is no result."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # begun with `&`: the harness would inherit that
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        said, _ = process.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        _interrupt(process)
        return f"no result after {_LIMIT_S:g} s"
    except BaseException:
        _interrupt(process)
        raise
    return (said.strip() or "no word").splitlines()[-1][:300]


def _interrupt(process: subprocess.Popen[str]) -> None:
    """Ends a run of the harness so that it ends its server: only SIGINT lets it, and once."""
    for pid in (process.pid, *machine.children(process.pid)):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(arguments) > 1 and arguments[1].endswith(b"bench_peers.py"):
            os.kill(pid, signal.SIGINT)
    try:
        process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def contenders(place: Workplace, asked: Sequence[str], model: str) -> list[str]:
    """Those of `asked` that can run here; the others get a line each."""
    kept = []
    for name in asked:
        if name in ENGINES:
            _, module = ENGINES[name]
            if machine.versions(place.serving_python, [module, f"{module}-gpu"]):
                kept.append(name)
            else:
                print(f"{name}: left out: {module} is not installed where {place.tessera.name} is")
        elif model == "street":
            continue  # a bundle's network: the peers cannot run it
        elif peers.installed(name, place.work):
            kept.append(name)
        else:
            print(f"{name}: left out: not installed; `make peers` installs it")
    return kept


def compare(place: Workplace, names: Sequence[str], load: Load, rounds: int) -> tuple[dict[str, list[Run]], list[str]]:
    """Every server in every round, in another order each time: its runs by name, and what went wrong in words."""
    results = place.work.resolve() / "results"
    results.mkdir(exist_ok=True)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    trouble = []
    for round_ in range(1, rounds + 1):
        turn = (round_ - 1) // 2 % max(1, len(names))
        order = [*names[turn:], *names[:turn]]
        for name in order if round_ % 2 else order[::-1]:
            out = results / f"peer{load.model}_{name}_{round_}.json"
            out.unlink(missing_ok=True)
            ours = name in ENGINES
            bad = run_ours(place, name, load, out) if ours else run_peer(place, name, load, round_, out)
            if bad:
                trouble.append(f"{name}, round {round_}: void: {bad}")
                print(trouble[-1], flush=True)
                continue
            runs[name].append(json.loads(out.read_text()))
            print(f"round {round_}: {name}", flush=True)
    return runs, trouble


def keep(load: Load, place: Workplace, found: Mapping[str, Summary], repeat: Repeat | None, trouble: list[str]) -> Path:
    """Writes the results with machine and versions; returns the file."""
    python = place.serving_python
    ours = ("tessera-segmentation", "onnxruntime", "openvino", "fastapi", "uvicorn", "numpy", "pillow")
    others = {peers.PEERS[name].package: peers.PEERS[name] for name in found if name in peers.PEERS}
    document: dict[str, Any] = {
        "what": "python -m benchmarks.serving",
        "model": load.model,
        "secs": load.secs,
        "machine": machine.describe(),
        "versions": {
            "ours": machine.versions(python, ours),
            "peers": {
                package: machine.versions(place.work / peer.env / "bin" / "python", [package]).get(package)
                for package, peer in others.items()
            },
            "client": machine.versions(place.client, ["onnxruntime", "numpy", "pillow"]),
        },
        "servers": {name: summary.numbers for name, summary in found.items()},
        "repeat": None if repeat is None else repeat._asdict(),
        "void": trouble,
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"serving-{load.model}.json"
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return file


def _names(text: str) -> list[str]:
    known = (*ENGINES, *peers.PEERS)
    asked = [part for part in text.split(",") if part]
    if unknown := [name for name in asked if name not in known]:
        raise argparse.ArgumentTypeError(f"no server {unknown[0]!r}; there is {', '.join(known)}")
    return asked


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=Path, default=peers.HARNESS, help="the harness's folder")
    parser.add_argument("--work", type=Path, default=peers.WORK, help="what `make peers` made")
    parser.add_argument("--tessera", type=Path, help="our command; default: that of `make serve`")
    parser.add_argument("--model", choices=("vit", "tiny", "street"), default="vit")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--secs", type=float, default=0.0, help="of each phase; default: 5, 3 for tiny")
    parser.add_argument("--conc", default="", help="clients; default: 1,8,32, for tiny 1,32")
    parser.add_argument("--open", default="", help="fractions of the raw rate, for open loops: 0.5,0.9")
    parser.add_argument("--only", type=_names, default=list(_DEFAULT))
    parser.add_argument("--no-repeat", action="store_true", help="leave the repeat of an image out")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    place = Workplace(given.peers.resolve(), given.work.resolve(), command(given.tessera))
    tiny = given.model == "tiny"
    load = Load(given.model, given.secs or (3 if tiny else 5), given.conc or ("1,32" if tiny else "1,8,32"), given.open)
    try:
        _all(place, load, given)
    except TesseraError as error:
        sys.exit(str(error))


def _all(place: Workplace, load: Load, given: argparse.Namespace) -> None:
    harness = (place.harness / "bench_peers.py").is_file() and place.client.is_file()
    if not harness:
        print(f"no harness at {given.peers}, or nothing in {given.work} (`make peers`): no comparison.")
        print("What needs none: benchmarks.embedded, benchmarks.stages, benchmarks.load, and the repeat of an image:")
    elif not place.reference(load.model).is_file() or not place.bundle(load.model).is_dir():
        sys.exit(f"the network of {load.model!r} is not in {given.work}: `make peers` makes it")
    found: dict[str, Summary] = {}
    trouble: list[str] = []
    if harness:
        runs, trouble = compare(place, contenders(place, given.only, load.model), load, given.rounds)
        found = {name: summarize(each) for name, each in runs.items() if each}
        print("\n" + table(found, overhead=load.model == "tiny"))
    repeat = None
    if not given.no_repeat and load.model != "tiny":
        repeat = measure_repeat(place.bundle(load.model if harness else "street"), place.work, place.tessera)
        print("\n" + repeat.sentence())
    if not given.no_keep and found:
        print(f"\nkept in {keep(load, place, found, repeat, trouble).relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
