"""What the rooms import is what pyproject.toml declares, with a floor."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from requirements import lock

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "service", "tessera", "training")
PROJECT = lock.project()["project"]
SERVING = set(PROJECT["optional-dependencies"]) - {"training", "dev"}
INTEGRATIONS = ROOT / "tessera" / "integrations"  # run inside CVAT's and FiftyOne's programs
DISTRIBUTION = {  # else the name of the module
    "PIL": "pillow",
    "skimage": "scikit-image",
    "cupy": "cupy-cuda13x",
    "google": "protobuf",
    "opentelemetry": "opentelemetry-sdk",
    "pyarrow": "ray",  # which its extra `data` brings
}


def imported(source: str) -> Iterator[str]:
    """The distributions that a module imports, ours and the standard library's aside."""
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(node.module or "")
        for module in (module.split(".")[0] for module in modules):
            if module not in sys.stdlib_module_names and module not in ROOMS:
                yield DISTRIBUTION.get(module, module.replace("_", "-").lower())


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in lines}


def undeclared(paths: list[Path], allowed: set[str]) -> dict[str, str]:
    return {name: str(path) for path in paths for name in imported(path.read_text()) if name not in allowed}


def test_what_serves_imports_only_what_serving_declares() -> None:
    paths = [path for room in ("models", "service", "tessera") for path in (ROOT / room).rglob("*.py")]
    elsewhere = {ROOT / "models" / "nets", INTEGRATIONS}
    paths = [path for path in paths if elsewhere.isdisjoint(path.parents)]
    assert len(paths) > 100
    assert undeclared(paths, declared(*SERVING)) == {}


def test_what_another_program_loads_imports_that_program_besides() -> None:
    paths = [*INTEGRATIONS.rglob("*.py")]
    assert len(paths) > 3
    assert undeclared(paths, declared(*SERVING) | {"cvat-sdk", "fiftyone"}) == {}


def test_training_imports_only_what_training_declares() -> None:
    paths = [*(ROOT / "training").rglob("*.py"), *(ROOT / "models" / "nets").rglob("*.py")]
    assert len(paths) > 50
    assert undeclared(paths, declared("training", "cpu")) == {}


@pytest.mark.parametrize(
    "source", ["import requests", "from requests.adapters import x", "def f():\n    import requests as r"]
)
def test_an_undeclared_import_is_found(source: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(f"import os, PIL.Image\nfrom . import requests\n{source}\n")
    assert undeclared([tmp_path / "module.py"], declared()) == {"requests": str(tmp_path / "module.py")}


def test_everything_declared_has_a_floor() -> None:
    lines = [
        *PROJECT["dependencies"],
        *(one for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for one in lines),
    ]
    assert [line for line in lines if not any(one.operator == ">=" for one in Requirement(line).specifier)] == []
