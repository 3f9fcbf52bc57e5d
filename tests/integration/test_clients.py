"""Programs that want older packages than ours, against a real server of the embedded default: `make clients` installs
them in an environment of their own, and tests/clients/ has what each is asked to do."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import embedded
from tests.service.process import process

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
SCRIPTS = sorted((ROOT / "tests" / "clients").glob("*.py"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="other people's clients are not installed: make clients"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(embedded()[0], tmp_path_factory.mktemp("state")) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_their_own_code_takes_what_the_server_answers(script: Path, url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "FIFTYONE_DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [PYTHON, script, url, ROOT / "docs" / "street.jpg"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "to the pixel" in done.stdout
