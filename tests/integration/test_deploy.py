"""What the ways to deploy say: compose against its specification, systemd; who may come in; hashes.

Kubernetes has its own: test_kubernetes.py.
"""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from service import supervisor
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DRAIN_S = Settings.model_fields["drain_s"].default


class Loader(yaml.SafeLoader):
    """YAML with Compose's `!reset`, which removes what the file below it said."""


Loader.add_constructor("!reset", lambda loader, node: None)


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader)["services"]
    return found


def test_compose_follows_the_specification() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    compose = PyCompose.from_yaml(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))  # as Compose fills in its defaults
    compose.validate()
    assert compose.service_names() == ["tessera"]


def test_the_specification_check_can_fail() -> None:
    for broken in ("networks: [gone]", "deploy: {resources: 3}", "ports: [here]", "unheard_of: 1"):
        with pytest.raises(ValueError, match="a"):
            PyCompose.from_yaml(f"services: {{a: {{image: x, {broken}}}}}").validate()


def test_a_gpu_is_reserved_and_the_override_gives_it_back() -> None:
    (device,) = services("docker-compose.yml")["tessera"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    override = services("docker-compose.cpu.yml")["tessera"]
    assert override["deploy"] is None
    assert override["build"]["args"] == {"RUNTIME": "cpu"}


def test_the_images_differ_by_one_argument() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert dockerfile.count("${RUNTIME}") == 1
    assert "ARG RUNTIME=gpu" in dockerfile


def test_what_is_open_is_published_on_this_machine_alone() -> None:
    tessera = services("docker-compose.yml")["tessera"]
    assert "--open" in tessera["command"]
    assert all(str(port).startswith("127.0.0.1:") for port in tessera["ports"])
    hosts = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", tessera["environment"]["TESSERA_HOSTS"])
    assert "localhost" in hosts.split(",")  # or any site could ask by a name of its own that leads to 127.0.0.1
    (command,) = re.findall(r"^CMD (\[\"serve\".*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert json.loads(command) == tessera["command"]


@pytest.mark.parametrize(
    ("given", "passed"), [([], False), (["OPEN=1"], True), (["OPEN="], False), (["OPEN=0"], False)]
)
def test_make_serve_is_open_where_that_is_said(given: list[str], passed: bool) -> None:
    made = subprocess.run(
        ["make", "--dry-run", "serve", "HOST=0.0.0.0", *given], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in made.stdout.splitlines() if "tessera serve" in line]
    assert "--host 0.0.0.0" in line
    assert ("--open" in line.split()) == passed


def test_whoever_stops_the_server_waits_longer_than_it_drains() -> None:
    unit = service_unit()
    graces = (
        int(str(services("docker-compose.yml")["tessera"]["stop_grace_period"]).removesuffix("s")),
        int(unit["Service"]["TimeoutStopSec"]),
    )
    assert all(grace >= DRAIN_S + 4 for grace in graces)


def test_systemd_restarts_as_the_supervisor_does_and_no_wrong_setting() -> None:
    unit = service_unit()
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartPreventExitStatus"]) == supervisor.USAGE
    assert int(unit["Unit"]["StartLimitBurst"]) == supervisor.RESTARTS
    assert int(unit["Unit"]["StartLimitIntervalSec"]) == supervisor.WITHIN_S
    assert unit["Service"]["ExecStart"].split()[0].endswith("/tessera")
    assert "--host 127.0.0.1" in unit["Service"]["ExecStart"]
    for setting in unit["Service"]["Environment"].split():
        name = setting.split("=")[0]
        assert not name.startswith("TESSERA_") or name.removeprefix("TESSERA_").lower() in Settings.model_fields


def service_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    assert unit.read(ROOT / "deploy" / "tessera.service")
    return unit


def assert_by_hash(lines: list[str]) -> None:
    """Every `pip install` takes wheels whose hash a lock file names, or ours alone, without asking an index."""
    hashed = [line for line in lines if "--require-hashes" in line and "--only-binary :all:" in line]
    ours = [line for line in lines if "--no-deps --no-build-isolation" in line]
    assert len(hashed) >= 2
    assert len(ours) == 1
    assert len(hashed) + len(ours) == len(lines), lines
    assert "requirements/build.txt" in hashed[0]  # pip itself, and the setuptools that builds ours


def test_the_image_is_installed_by_hash() -> None:
    assert_by_hash(re.findall(r"pip install .*", (ROOT / "Dockerfile").read_text()))
    kept = (ROOT / ".dockerignore").read_text().split()
    assert "!requirements" in kept


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_installs_by_hash_and_only_lock_without_a_value_does_not() -> None:
    def installs(*arguments: str) -> list[str]:
        make = ["make", "--dry-run", "--always-make", "EXTRAS=heic,dicom", *arguments]
        said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return re.findall(r".*pip install .*", said)

    serving = installs("serve")
    assert_by_hash(serving)
    assert all(f"-r requirements/{name}.txt" in serving[1] for name in ("heic", "dicom"))
    assert_by_hash(installs("test"))
    for target in ("serve", "test"):
        assert all("-unlocked/" in line and "--require-hashes" not in line for line in installs(target, "LOCK="))
