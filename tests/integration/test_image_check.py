"""What `make image-check` finds wrong with an image, on made-up ones; the check itself builds and runs the real one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.image_check import __main__ as image_check
from tests.image_check import container
from tests.image_check.image import SBOM, Image

CONFIG: dict[str, Any] = {
    "User": "10001:10001", "StopSignal": "SIGTERM", "Labels": {SBOM: "/opt/tessera/sbom.cdx.json"},
    "Entrypoint": ["tessera"], "Env": ["A=1"],
}  # fmt: skip


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """One with two packages, and a list that has them."""
    site = tmp_path / "opt/tessera/lib/python3.11/site-packages"
    for name in ("numpy-2.0.dist-info", "tessera_segmentation-1.0.dist-info"):
        (site / name).mkdir(parents=True)
    listed = {"component": {"name": "tessera-segmentation"}}
    said = {"bomFormat": "CycloneDX", "metadata": listed, "components": [{"name": "numpy"}]}
    (tmp_path / "opt/tessera/sbom.cdx.json").write_text(json.dumps(said))
    return Image(tmp_path, dict(CONFIG))


def test_nothing_is_wrong_with_a_sound_one(image: Image) -> None:
    assert [*image.problems(torch=False)] == []


@pytest.mark.parametrize("name", ["usr/bin/gcc", "usr/bin/x86_64-linux-gnu-gcc-12", "usr/local/bin/clang-15", "bin/ld"])
def test_a_compiler_is_found(name: str, image: Image) -> None:
    image.inside(name).parent.mkdir(parents=True)
    image.inside(name).touch()
    assert any(f"compiler is in the image: /{name}" in problem for problem in image.problems(torch=False))


@pytest.mark.parametrize("name", ["torch-2.10", "timm-1.0"])
def test_torch_is_found(name: str, image: Image) -> None:
    image.inside(f"opt/tessera/lib/python3.11/site-packages/{name}.dist-info").mkdir()
    assert any(f"image: {name.split('-')[0]}" in problem for problem in image.problems(torch=False))


def test_what_is_installed_and_not_listed_is_found(image: Image) -> None:
    image.inside("opt/tessera/lib/python3.11/site-packages/extra_one-1.dist-info").mkdir()
    assert any("differ in extra-one" in problem for problem in image.problems(torch=False))
    image.config["Labels"] = {}
    assert any("no file of the image" in problem for problem in image.problems(torch=False))


def test_a_volume_that_its_user_cannot_write_is_found(image: Image) -> None:
    image.inside("/var/lib/tessera").mkdir(parents=True)
    (problem,) = Image(image.root, {**image.config, "Volumes": {"/var/lib/tessera": {}}}).problems(torch=False)
    assert problem.startswith("the volume /var/lib/tessera begins as another's")


@pytest.mark.parametrize("change", [{"User": "root"}, {"User": "0:0"}, {"User": "tessera"}, {"StopSignal": "SIGKILL"}])
def test_a_user_that_may_be_root_and_another_signal_are_found(change: dict[str, str], image: Image) -> None:
    assert len([*Image(image.root, {**image.config, **change}).problems(torch=False)]) == 1


def test_a_container_is_run_strictly(image: Image, tmp_path: Path) -> None:
    said: Any = container.specification(image, ["serve"], {"/var/lib/tessera": tmp_path}, {"B": "2"})
    assert said["root"] == {"path": str(tmp_path), "readonly": True}
    process = said["process"]
    assert (process["args"], process["env"]) == (["tessera", "serve"], ["A=1", "B=2"])
    assert process["user"] == {"uid": 10001, "gid": 10001}
    assert process["noNewPrivileges"]
    assert not any(process["capabilities"].values())
    writable = {mount["destination"] for mount in said["mounts"] if "rw" in mount.get("options", ())}
    assert writable == {"/var/lib/tessera"}


def test_a_missing_tool_is_told_in_words(tmp_path: Path) -> None:
    assert "make image-check IMAGE_CHECK=PATH" in image_check.objection(tmp_path / "image-check")


def test_sizes_are_read_as_buildah_prints_them() -> None:
    assert [image_check.megabytes(said) for said in ("821 MB", "6.1 GB", "3.53 KB")] == pytest.approx(
        [821, 6100, 0.00353]
    )


def test_the_health_check_is_the_dockerfiles() -> None:
    assert image_check.health(image_check.ROOT)[0] == "python3"
