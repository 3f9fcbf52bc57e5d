"""What the ways to deploy say: systemd; who may come in; who waits for whom; hashes.

Compose and Kubernetes have their own: test_compose.py, test_kubernetes.py.
"""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service import supervisor
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DRAIN_S = Settings.model_fields["drain_s"].default


def test_the_images_differ_by_runtime_and_have_no_extras_unless_named() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert dockerfile.count("${RUNTIME}") == 1
    assert "ARG RUNTIME=gpu" in dockerfile
    assert set(re.findall(r"^ARG EXTRAS=(.*)$", dockerfile, re.MULTILINE)) == {""}


@pytest.mark.parametrize(
    ("extras", "locks"),
    [("", ["serve-cpu"]), ("ray", ["serve-cpu", "ray"]), ("ray,otel", ["serve-cpu", "ray", "otel"])],
)
def test_extras_of_an_image_are_lock_files(extras: str, locks: list[str]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (line,) = re.findall(r'^RUN (locks=".*") && ', dockerfile, re.MULTILINE)
    (files,) = re.findall(r"(printf -- '-r .*' \$locks)\)$", dockerfile, re.MULTILINE)
    told = subprocess.run(
        ["sh", "-euc", f"{line}; {files}"], env={"RUNTIME": "cpu", "EXTRAS": extras, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == [word for lock in locks for word in ("-r", f"requirements/{lock}.txt")]
    assert all((ROOT / "requirements" / f"{lock}.txt").is_file() for lock in locks)


def test_the_image_of_kuberays_example_is_one_that_the_dockerfile_tells_how_to_build() -> None:
    example = (ROOT / "deploy" / "kubernetes" / "examples" / "rayservice.yaml").read_text()
    (image,) = {*re.findall(r"^ +image: (\S+)$", example, re.MULTILINE)}
    (command,) = re.findall(r"^# (docker build .*)$", example, re.MULTILINE)
    assert f"-t {image} " in command
    assert re.search(r"EXTRAS=(\w+,)*ray\b", command)
    assert command in (ROOT / "docs" / "ray.md").read_text()
    for argument in ("EXTRAS", "RUNTIME"):
        assert f"ARG {argument}=" in (ROOT / "Dockerfile").read_text()


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
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    graces = (
        int(str(compose["services"]["tessera"]["stop_grace_period"]).removesuffix("s")),
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    text = (
        (ROOT / "deploy" / "tessera.service")
        .read_text()
        .replace("/opt/tessera/bin/tessera", shutil.which("true") or "")
    )

    def said(unit: str) -> str:
        (tmp_path / "tessera.service").write_text(unit)
        command = ["systemd-analyze", "verify", str(tmp_path / "tessera.service")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stderr

    assert said(text) == ""
    assert "KillMod" in said(text.replace("KillMode=", "KillMod="))


def service_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    assert unit.read(ROOT / "deploy" / "tessera.service")
    return unit


def assert_by_hash(lines: list[str], environments: int = 1) -> None:
    """Every `pip install` takes wheels whose hash a lock file names, or ours alone, without asking an index.

    environments  how many ours is installed into
    """
    hashed = [line for line in lines if "--require-hashes" in line and "--only-binary :all:" in line]
    ours = [line for line in lines if "--no-deps --no-build-isolation" in line]
    assert len(hashed) >= 2 * environments
    assert len(ours) == environments
    assert len(hashed) + len(ours) == len(lines), lines
    assert "requirements/build.txt" in hashed[0]  # pip itself, and the setuptools that builds ours


def test_the_image_is_installed_by_hash() -> None:
    assert_by_hash(re.findall(r"pip install .*", (ROOT / "Dockerfile").read_text()), environments=2)
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
