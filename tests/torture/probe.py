"""One client that asks again and again, each time on a new connection, in a process of its own.

    python probe.py PORT METHOD PATH SOURCE EVERY_S LIMIT_S < BODY

Says `asking` after its first answer; at SIGTERM prints what it was answered as JSON: [[status or error, seconds], …].

Knows nothing of this repository, so that it starts at once and measures the server, not whoever tortures it.
"""

import http.client
import json
import signal
import sys
import time


def main() -> None:
    """The command of this file's first lines."""
    port, method, path, source, every_s, limit_s = sys.argv[1:]
    body = sys.stdin.buffer.read() or None
    over = False

    def end(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, end)
    answers: list[tuple[str, float]] = []
    while not over:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(port), timeout=float(limit_s), source_address=(source, 0)
        )
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
        finally:
            connection.close()
        answers.append((status, time.perf_counter() - began))
        if len(answers) == 1:
            print("asking", flush=True)
        time.sleep(float(every_s))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
