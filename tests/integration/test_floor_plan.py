"""The arrows of docs/design.md, held by running the service with torch made unimportable."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_service_never_meets_torch() -> None:
    poisoned = ["torch", "timm", "torchvision", "scipy", "skimage", "onnx", "training", "models.nets"]
    code = f"import sys; sys.modules.update(dict.fromkeys({poisoned})); import service.app, service.cli"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_poison_works() -> None:
    done = python("import sys; sys.modules['torch'] = None; import models.nets.encoder")
    assert done.returncode != 0
    assert "torch" in done.stderr


def test_import_contracts_hold() -> None:
    done = python("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")  # it mutes loggers
    assert done.returncode == 0, done.stdout


def test_no_room_is_called_utils() -> None:
    drawers = {"utils", "common", "helpers", "core", "misc"}
    for room in ("models", "service", "training"):
        for file in (ROOT / room).rglob("*.py"):
            assert not drawers & set(file.relative_to(ROOT).with_suffix("").parts), file
