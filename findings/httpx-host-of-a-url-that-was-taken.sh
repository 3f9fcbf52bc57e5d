#!/bin/sh
# httpx 0.28.1 (idna 3.20): httpx.URL takes an address whose host is malformed Punycode, and reading its `host` then
# raises idna.IDNAError, a UnicodeError and no httpx.InvalidURL. `raw_host`, `port`, `path` and str() of it are there.
#
# Guess before running: what is no URL raises httpx.InvalidURL when the URL is made; its parts can then be read.
#
# Seen (of http://xn--a%/x, http://xn--0.example/x and http://[::1/x):
#   made; host: idna.core.IDNAError
#   made; host: idna.core.IDNAError
#   httpx.InvalidURL
#
# So: code that allows one host alone compares `raw_host`; with `except httpx.InvalidURL` around a look at `host`, a
# stranger's address ends as a failure of the server's.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet httpx==0.28.1 idna==3.20 2>/dev/null
"$folder/env/bin/python" - <<'PYTHON'
import sys

import httpx

seen = []
for address in ("http://xn--a%/x", "http://xn--0.example/x", "http://[::1/x"):
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        seen.append("httpx.InvalidURL")
        continue
    try:
        seen.append(f"made; host: {url.host}")
    except UnicodeError as error:
        seen.append(f"made; host: {type(error).__module__}.{type(error).__name__}")
    assert url.raw_host
    assert url.port is None
print("\n".join(seen))
wanted = ["made; host: idna.core.IDNAError"] * 2 + ["httpx.InvalidURL"]
sys.exit(0 if seen == wanted else "changed: the behaviour is not what was seen")
PYTHON
