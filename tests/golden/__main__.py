"""`python -m tests.golden [--dir DIR]`: one line per case of a golden folder, then how many passed.

Exit code 0 when all passed, 1 when any failed, 2 when there is no folder to run.
"""

import argparse
import sys
from pathlib import Path

from tests.golden.cases import FUNCTIONS
from tests.golden.runner import DATA, GoldenError, entries, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=DATA, help="a folder with a manifest.json (default: %(default)s)")
    folder = parser.parse_args().dir
    try:
        cases = entries(folder)
    except GoldenError as error:
        print(error, file=sys.stderr)
        return 2
    passed = 0
    for entry in cases:
        result = run(entry, folder, FUNCTIONS)
        passed += result.passed
        print(result, flush=True)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
