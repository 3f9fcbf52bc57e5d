"""Fuzzing for a while: pictures, TIFF directories, requests of every kind, bundle manifests.

    python -m tests.fuzz [--seconds 600] [--only pictures,JSON] [--seed N]
    python -m tests.fuzz --only pictures --again WORD            one example once more, as a failure has printed it

What must hold of each example stands in targets.py. A failure is made as small as hypothesis can and printed with its
word; nothing is written. Where a codec of outside software ends the process that reads, the format is told and the
example is not. Exit code 1 where something failed or ended.

Knows nothing of what is drawn.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import Target, blob, example_of, manifest_target, picture_targets, server_targets
from tests.tiny import write_tiny_bundle
from tests.torture.process import start

_ROUND = 60  # examples before it is the next target's turn
_SLOW = {"pictures apart": 10}  # of a process each: so many times fewer


class Failure(NamedTuple):
    """One that did not hold: where, why, with which seed of hypothesis, and the smallest example."""

    target: str
    why: str
    seed: int
    word: str


def attempt(target: Target, number: int, examples: int) -> Failure | None:
    """So many examples of one seed."""
    last: list[Any] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.examples)
    def run(example: Any) -> None:
        last[:] = [example]
        target.check(example)

    try:
        run()
    except Exception as error:
        return Failure(target.name, f"{type(error).__name__}: {error}", number, blob(last[0]))
    return None


@contextmanager
def all_targets() -> Iterator[list[Target]]:
    """Every target, with the processes it needs."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz.")))
        bundle = write_tiny_bundle(work / "tiny").path
        models = work / "models"
        models.mkdir()
        write_tiny_bundle(models / "tiny")
        limits = {"header_timeout_s": 2, "body_timeout_s": 2, "max_body_bytes": 2**20}
        server = start([bundle], work / "state", models=models, admin_key="admin", **limits)
        stack.callback(server.kill)
        pictures = stack.enter_context(picture_targets())
        deadline = time.monotonic() + 60
        while not any("POST /segment" in line for line in server.log):
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {server.log[-1:]}")
            time.sleep(0.05)
        yield [*pictures, *server_targets(server), manifest_target(bundle, work)]


def fuzz(
    targets: list[Target], seconds: float, first_seed: int, *, rounds: int = sys.maxsize, examples: int = _ROUND
) -> list[Failure]:
    """The targets by turns until the time is over; one that failed is not asked again."""
    failures: list[Failure] = []
    over = time.monotonic() + seconds
    for round_ in range(rounds):
        for target in targets:
            if time.monotonic() > over:
                return failures
            if target.name in {failure.target for failure in failures}:
                continue
            if failure := attempt(target, first_seed + round_, examples // _SLOW.get(target.name, 1)):
                failures.append(failure)
                print(f"FAILED {target.name}: {failure.why[:300]}", flush=True)
                print(f"  again: python -m tests.fuzz --only {target.name!r} --again {failure.word}", flush=True)
    return failures


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", help="targets, separated by commas")
    parser.add_argument("--seed", type=int, help="of hypothesis, to begin with (default: the time)")
    parser.add_argument("--again", help="an example's word, for the one target of --only")
    given_ = parser.parse_args()
    first_seed = given_.seed if given_.seed is not None else int(time.time())
    with all_targets() as targets:
        if given_.only:
            wanted = {name.strip() for name in given_.only.split(",")}
            if unknown := wanted - {target.name for target in targets}:
                parser.error(f"no target {min(unknown)!r}; there are {', '.join(target.name for target in targets)}")
            targets = [target for target in targets if target.name in wanted]
        if given_.again:
            kind, data = example_of(given_.again)
            targets[0].check((kind, data) if kind else data)
            print(f"holds: {dict(targets[0].tried)}")
            return 0
        print(f"seed {first_seed}, {given_.seconds:.0f} s")
        failures = fuzz(targets, given_.seconds, first_seed)
        print("\n| target | tried | outcomes | |\n|---|---|---|---|")
        for target in targets:
            outcomes = ", ".join(f"{how} × {count}" for how, count in target.tried.most_common())
            failed = any(failure.target == target.name for failure in failures)
            print(f"| {target.name} | {target.tried.total()} | {outcomes} | {'FAILED' if failed else 'holds'} |")
            for what, count in target.outside.items():
                print(f"|  | {count} | OUTSIDE SOFTWARE ended the reading process: {what} | ENDED |")
    return 1 if failures or any(target.outside for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
