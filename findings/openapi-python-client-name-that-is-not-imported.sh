#!/bin/sh
# openapi-python-client 0.29.1 makes a module that cannot be imported, without a warning and with exit code 0, of an
# operation that takes two kinds of body and has no optional parameter: it writes `body: A | File | Unset = UNSET`, for a
# body that is required too, and imports UNSET alone. With one kind of body, or with any optional parameter, it is right.
#
# Guess before running: --fail-on-warning and silence mean that every generated module imports; a required body is
# required in Python, too.
#
# Seen:
#   one kind of body: exit 0, imports
#   two kinds of body: exit 0, NameError: name 'Unset' is not defined
#   two kinds of body and an optional parameter: exit 0, imports
#
# So: whoever describes an API imports each module that is made of it (mypy finds it as well), in a test of his own.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet openapi-python-client==0.29.1 2>/dev/null
cd "$folder"
PATH="$folder/env/bin:$PATH" # it runs ruff over what it made
"$folder/env/bin/python" - <<'PYTHON'
import json
import subprocess
import sys
from pathlib import Path

FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
TEXT = {"application/json": {"schema": {"$ref": "#/components/schemas/Text"}}}
OPTION = {"name": "k", "in": "query", "required": False, "schema": {"type": "integer"}}
CASES = {
    "one kind of body": (TEXT, []),
    "two kinds of body": (FILE | TEXT, []),
    "two kinds of body and an optional parameter": (FILE | TEXT, [OPTION]),
}


def made(content, parameters):
    operation = {
        "operationId": "send",
        "tags": ["all"],
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "OK", "content": TEXT}},
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "A", "version": "1"},
        "paths": {"/send": {"post": operation}},
        "components": {
            "schemas": {"Text": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}
        },
    }
    Path("a.json").write_text(json.dumps(document))
    generator = Path(sys.executable).with_name("openapi-python-client")
    command = [generator, "generate", "--path", "a.json", "--output-path", "out", "--overwrite", "--fail-on-warning"]
    code = subprocess.run(command, capture_output=True).returncode
    tried = [sys.executable, "-c", "import a_client.api.all_.send"]
    done = subprocess.run(tried, cwd="out", capture_output=True, text=True)
    return code, done.stderr.strip().splitlines()[-1].partition(".")[0] if done.returncode else "imports"


seen = {name: made(*case) for name, case in CASES.items()}
for name, (code, said) in seen.items():
    print(f"{name}: exit {code}, {said}")
wanted = [(0, "imports"), (0, "NameError: name 'Unset' is not defined"), (0, "imports")]
sys.exit(0 if list(seen.values()) == wanted else "changed: the behaviour is not what was seen")
PYTHON
