"""The wheel, installed and run as a user runs it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest
from httpx import ConnectError, get

from tests.service.fakes import free_port, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tessera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command: the wheel alone in an environment that borrows this one's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # not in place: what an earlier build left there would come along
    for room in ("models", "service", "tessera", "training"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("models/crf/cuda/grid.cu", "models/pretrained/street/manifest.json", "service/web/main.js"):
        assert part in names
    assert {"service/web/strings/en.js", "service/web/docs/explorer.js", "service/web/docs/strings/en.js"} <= {*names}
    assert "training/recipes/folder-stego.toml" in names
    home = folder / "home"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (python,) = home.glob("bin/python")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin" / "tessera"


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, object]:
    """Where a user stands: a folder of their own called `models`, and PYTHONPATH=. to reach it."""
    for name in ("models", "service", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the user’s own package was imported')\n")
    environment = {**os.environ, "PYTHONPATH": ".", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    return {"cwd": tmp_path, "env": environment}


@pytest.mark.slow
def test_a_folder_called_models_does_the_command_no_harm(tessera: Path, elsewhere: dict[str, object]) -> None:
    for arguments in (["--version"], ["serve", "--help"], ["train", "--help"]):
        done = subprocess.run([tessera, *arguments], capture_output=True, text=True, check=False, **elsewhere)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_it_serves_the_embedded_default(tessera: Path, elsewhere: dict[str, object]) -> None:
    port = free_port()
    server = subprocess.Popen([tessera, "serve", "--port", str(port)], stderr=subprocess.PIPE, **elsewhere)  # type: ignore[call-overload]
    try:

        def ready() -> bool:
            try:
                return get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except ConnectError:
                assert server.poll() is None, server.stderr.read()
                time.sleep(0.05)
                return False

        wait_until(ready, 60)
        assert get(f"http://127.0.0.1:{port}/").status_code == 200  # the page is in the wheel
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
