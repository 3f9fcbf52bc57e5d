"""docker-compose.yml against the Compose specification, and what its two variants ask of a host."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]


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
