"""Every command of docs/operations.md, in one shell, in an empty folder, beside the servers that the page starts.

A ```bash block runs unless a `<!-- needs: … -->` stands before it; a ```text block is what the one before it printed.
Ports are others here. The page's `bundles/street` is the embedded default, `bundles/street-v2` the same clusters under
another digest.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from models.bundle import Bundle
from service.settings import embedded
from tests.service.fakes import free_port
from tests.service.server import proved
from tests.service.variants import variant

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
NOT_HERE = {"Docker", "systemd", "Kubernetes", "GPU", "network"}
_BLOCK = re.compile(r"(?:^<!-- needs: ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- block %d ---"


def blocks() -> list[tuple[str, str, str]]:
    """What each needs, its language and its text."""
    return _BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def test_every_block_is_run_or_says_what_it_needs() -> None:
    found = blocks()
    assert PAGE.read_text(encoding="utf-8").count("\n```") == 2 * len(found)
    assert {needs for needs, _, _ in found if needs} == NOT_HERE
    assert {language for _, language, _ in found} == {"bash", "text"}
    for needs, _, code in found:
        tools = {"docker", "systemctl", "kubectl", "nvidia-smi"} & set(re.findall(r"[\w-]+", code))
        assert needs or not tools, f"{tools} cannot be had here: say so above\n{code}"


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("sqlite3") and shutil.which("curl")), reason="needs curl and sqlite3")
def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    street = Bundle.load(embedded()[0])
    shutil.copytree(street.path, tmp_path / "bundles" / "street")
    variant(street, tmp_path / "bundles" / "street-v2")
    for bundle in ("street", "street-v2"):
        proved(tmp_path / "bundles" / bundle, tmp_path / "state")
    (tmp_path / "state").chmod(0o700)
    shutil.copy(ROOT / "docs" / "street.jpg", tmp_path)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as photos:
        photos.write(tmp_path / "street.jpg", "photos/street.jpg")
    tessera = tmp_path / "bin" / "tessera"
    tessera.parent.mkdir()
    tessera.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "from tessera.cli import main; main()" "$@"\n')
    tessera.chmod(0o755)

    run = [
        (number, code) for number, (needs, language, code) in enumerate(blocks()) if language == "bash" and not needs
    ]
    script = "".join(f"echo '{_MARK % number}'; echo '{_MARK % number}' >&2\n{code}\n" for number, code in run)
    ports = {"8000": str(free_port()), "8001": str(free_port())}
    for written, port in ports.items():
        script = re.sub(rf"(?<=:){written}\b|(?<=--port ){written}\b", port, script)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**environment, "PATH": f"{tessera.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        printed, said = shell.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        printed, said = shell.communicate()
    finally:
        if shell.returncode:  # what the page started goes with its shell
            os.killpg(shell.pid, signal.SIGKILL)
    parts = re.split(r"^--- block (\d+) ---\n", printed, flags=re.MULTILINE)
    answers = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    last = max(answers)
    assert shell.returncode == 0, f"{blocks()[last][2]}\n{answers[last]}\n{said.rpartition('--- block')[2]}"
    assert set(answers) == {number for number, _ in run}
    for number, (_, language, shown) in enumerate(blocks()):
        if language == "text":
            assert answers[number - 1] == shown, blocks()[number - 1][2]
