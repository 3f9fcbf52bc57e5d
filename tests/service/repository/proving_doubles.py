"""What the proving process may come to, without a network that does it: each `main` ends one way."""

import os
import sys
import time

from service.repository import proving_process

PROVED, REFUSED, NO_MEMORY, ENVIRONMENT = (
    proving_process.PROVED, proving_process.REFUSED, proving_process.NO_MEMORY, proving_process.ENVIRONMENT
)  # fmt: skip


def main() -> None:
    """As the environment's TESSERA_TEST_END says."""
    match os.environ["TESSERA_TEST_END"]:
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "spin":
            proving_process._limit(2**30, int(sys.argv[4]))
            while True:
                pass
        case "silence":
            sys.exit(0)
        case "chatter":
            print("proved, or so", flush=True)
        case "traceback":
            raise RuntimeError("out of luck")
