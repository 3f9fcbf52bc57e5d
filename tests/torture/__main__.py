"""Every test of RELIABILITY 4.2 and what this project adds to them, against real servers on loopback: one table.

    python -m tests.torture [--only 4,12,A] [--short | --long] [--quick] [--soak SECONDS] [--keep]

The numbers are those of docs/reliability.md, the letters too. `--short` leaves the long ones out, `--long` the short
ones; `--quick` does a tenth of the rounds, and the table says how many. Exit code 1 where one fails.

Knows nothing of what a test does.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from tests.tiny import write_tiny_bundle
from tests.torture import bundles, connections, engines, load, pictures, requests, shutdown, state, supply
from tests.torture.verdict import TESTS, Place, Row, Trial, judged, table

ROOMS = (bundles, connections, engines, load, pictures, requests, shutdown, state, supply)
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def order(test: Trial) -> tuple[bool, int, str]:
    """RELIABILITY's numbers first."""
    return not test.number.isdigit(), int(test.number) if test.number.isdigit() else 0, test.number


def run(tests: list[Trial], *, quick: bool, soak_s: float) -> list[Row]:
    """One after the other; a line for each as it ends."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="torture.") as work:
        Path(work).chmod(0o755)
        place = Place(Path(work), write_tiny_bundle(Path(work) / "tiny").path, quick, soak_s)
        for test in tests:
            row = asyncio.run(judged(test, place))
            rows.append(row)
            why = f": {row.failed[0][:150]}" if row.failed else ""
            print(f"{row.number:>3} {row.verdict:<9} {row.seconds:6.1f} s  {row.title[:60]}{why}", flush=True)
    return rows


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="numbers and letters, separated by commas")
    parser.add_argument("--short", action="store_true", help="without the long ones")
    parser.add_argument("--long", action="store_true", help="only the long ones")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--soak", type=float, default=1800.0, help="seconds of the soak (default: %(default).0f)")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/torture.{md,json}")
    given = parser.parse_args()
    tests = sorted(TESTS, key=order)
    if given.only:
        wanted = {number.strip().upper() for number in given.only.split(",")}
        if unknown := wanted - {test.number.upper() for test in tests}:
            parser.error(f"there is no test {min(unknown)}; there are {', '.join(test.number for test in tests)}")
        tests = [test for test in tests if test.number.upper() in wanted]
    tests = [test for test in tests if not (given.short and test.long) and not (given.long and not test.long)]
    rows = run(tests, quick=given.quick, soak_s=given.soak)
    print("\n" + table(rows))
    failed = [row.number for row in rows if row.verdict == "FAILED"]
    counts = f"{len(rows) - len(failed)} of {len(rows)} hold" + (f"; fail: {', '.join(failed)}" if failed else "")
    print("\n" + counts)
    if given.keep:
        kept = {"what": "python -m tests.torture", "quick": given.quick, "machine": machine.describe()}
        kept |= {"rows": [row._asdict() for row in rows]}
        (RESULTS / "torture.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        (RESULTS / "torture.md").write_text(table(rows) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
