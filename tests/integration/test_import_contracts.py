"""The arrows of docs/design.md, held by running the service with torch made unimportable."""

import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import iter_modules

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


def test_every_module_of_models_but_nets_is_under_the_contract_without_torch() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [one for one in linter["contracts"] if one["name"] == "Models meet torch in nets alone"]
    modules = {f"models.{module.name}" for module in iter_modules([str(ROOT / "models")])}
    assert set(contract["source_modules"]) == modules - {"models.nets"}
    assert {"torch", "timm", "models.nets"} <= set(contract["forbidden_modules"])


def test_no_arrow_is_hidden_from_the_contracts() -> None:
    for room in ("models", "service", "tessera", "training"):
        for file in (ROOT / room).rglob("*.py"):
            assert "TYPE_CHECKING" not in file.read_text(), file


def test_no_room_is_called_utils() -> None:
    drawers = {"utils", "common", "helpers", "core", "misc"}
    for room in ("models", "service", "tessera", "training"):
        for file in (ROOT / room).rglob("*.py"):
            assert not drawers & set(file.relative_to(ROOT).with_suffix("").parts), file
