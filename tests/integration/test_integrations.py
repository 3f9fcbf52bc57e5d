"""Every snippet of docs/integrations, docs/segment.md and docs/jobs.md does what its page shows, beside a real server
of the embedded default.

A page's ```python and ```bash blocks run in order, in one folder that holds street.jpg; a ```text block is what the one
before it prints. `localhost:8000` is the test's own server. A page whose first line is `<!-- needs: module -->` is
skipped where that cannot be imported; one whose first line is `<!-- in .venv-clients -->` is run by what `make clients`
installs, `<!-- in the system's python: module -->` by the one that Debian's packages are for; other languages (```xml,
```yaml, ```json) are not run.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import embedded
from tests.service.process import process

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
PAGES = sorted(page for page in (ROOT / "docs" / "integrations").glob("*.md") if page.stem != "README")
PAGES += [ROOT / "docs" / "segment.md", ROOT / "docs" / "jobs.md"]
QUICK = ("curl", "hugging-face", "jobs")
_BLOCK = re.compile(r"^```(python|bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(embedded()[0], tmp_path_factory.mktemp("state")) as (_, port):
        yield f"localhost:{port}"


@pytest.mark.parametrize(
    "page", [pytest.param(one, id=one.stem, marks=() if one.stem in QUICK else pytest.mark.slow) for one in PAGES]
)
def test_the_snippets_print_what_the_page_shows(page: Path, address: str, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    python, home = sys.executable, os.environ["HOME"]
    if text.startswith("<!-- in .venv-clients -->"):
        if not CLIENTS.exists():
            pytest.skip("other people's clients are not installed: make clients")
        python, home = str(CLIENTS), str(tmp_path)
    for module in re.findall(r"<!-- in the system's python: (.*?) -->", text.split("\n", 1)[0]):
        python = "/usr/bin/python3"
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            pytest.skip(f"{module} is not installed for {python}")
    for needed in re.findall(r"<!-- needs: (.*?) -->", text.split("\n", 1)[0]):
        for module in needed.split(", "):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
    shutil.copy(ROOT / "docs" / "street.jpg", tmp_path)
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    qt = {"QT_QPA_PLATFORM": "offscreen"}
    environment = {**os.environ, **qt, "PYTHONPATH": str(ROOT), "PATH": path, "HOME": home}
    printed = None
    for language, code in _BLOCK.findall(text):
        if language == "text":
            assert printed == code, f"{page.name} shows\n{code}\nand this was printed\n{printed}"
            continue
        command = [python, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, code.replace("localhost:8000", address)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stderr}"
        printed = done.stdout.replace(address, "localhost:8000")
    assert printed is not None
