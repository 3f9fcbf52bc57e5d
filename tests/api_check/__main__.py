"""The live server held against its own /openapi.json by schemathesis: all checks, stateful.

    python -m tests.api_check [--seconds 150] [--seed 1]

A server of the tiny bundle on loopback, which may load and unload that bundle again, and another as its canary. What is
asked of it, and the few exceptions, stand in schemathesis.toml beside this file. The exit code is schemathesis's, or 1
where the server ended or its log has a traceback.

Knows nothing of the routes.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.tiny import write_tiny_bundle
from tests.torture.process import ready, start

CONFIG = Path(__file__).with_name("schemathesis.toml")
_GRACE_S = 120.0  # for what schemathesis does beside asking


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.api_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150.0, help="of asking (default: %(default).0f)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="api-check.") as folder:
        work = Path(folder)
        models = work / "models"
        bundle = write_tiny_bundle(models / "tiny").path
        write_tiny_bundle(models / "newer", name="newer")
        server = start([bundle], work / "state", models=models, admin_key="admin")
        try:
            asyncio.run(ready(server))
            shutil.copy(CONFIG, work)
            command = [
                Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{server.port}/openapi.json",
                "--checks", "all", "--continue-on-failure", "--seed", str(given.seed), "--max-time",
                str(int(given.seconds)), "--header", "X-API-Key: admin", "--warnings", "off",
            ]  # fmt: skip
            code = subprocess.run(command, cwd=work, timeout=given.seconds + _GRACE_S, check=False).returncode
            if server.process.poll() is not None:
                print(f"the server ended: {server.log[-1:]}", file=sys.stderr)
                return 1
            if traces := [line for line in server.log if "Traceback" in line]:
                print(f"{len(traces)} tracebacks in the server's log:", *server.log[-30:], sep="\n", file=sys.stderr)
                return 1
            return code
        except subprocess.TimeoutExpired as late:
            print(f"schemathesis was not done after {late.timeout:.0f} s", file=sys.stderr)
            return 1
        finally:
            server.kill()


if __name__ == "__main__":
    sys.exit(main())
