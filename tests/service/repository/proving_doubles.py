"""What the proving process may come to, without a network that does it.

Knows nothing of bundles.
"""

import os
import resource
import sys
import time


def main() -> None:
    """Ends, or does not, as TESSERA_TEST_END says."""
    match os.environ["TESSERA_TEST_END"]:
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "spin":
            resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[4]), 60))
            while True:
                pass
        case "chatter":
            print("proved, or so", flush=True)
        case "traceback":
            raise RuntimeError("out of luck")
