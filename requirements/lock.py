"""The lock files made from pyproject.toml, and proved for every Python and platform that is covered: `make lock`.

Knows nothing of what is installed on this machine: versions and hashes are the public index's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from typing import NamedTuple

from requirements import covered, pins

HEADER = "# Made by `make lock` from pyproject.toml; what is not in here is not installed.\n"
UV_PLATFORM = {
    "Linux x86_64": "x86_64-unknown-linux-gnu",  # glibc 2.28
    "Linux aarch64": "aarch64-unknown-linux-gnu",
    "Darwin arm64": "aarch64-apple-darwin",
}


class Lock(NamedTuple):
    """What one file is made of: extras, `base` (what we always need) beside them, the file whose versions it shares."""

    extras: tuple[str, ...] = ()
    base: bool = False
    like: str = ""


# In order: what is served has the versions that the tests ran with. Its CUDA is not torch's, so serve-gpu follows
# serve-cpu.
LOCKS = {
    "build": Lock(),
    "dev": Lock(("cpu", "training", "dev"), base=True),
    "training": Lock(("cpu", "training"), base=True, like="dev"),
    "serve-cpu": Lock(("cpu",), base=True, like="dev"),
    "serve-gpu": Lock(("gpu",), base=True, like="serve-cpu"),
    "openvino": Lock(("openvino",), like="dev"),
    "heic": Lock(("heic",), like="dev"),
    "dicom": Lock(("dicom",), like="dev"),
    "geo": Lock(("geo",), like="dev"),
    "zarr": Lock(("zarr",), like="dev"),
    "remote": Lock(("remote",), like="dev"),
    "hub": Lock(("hub",), like="dev"),
    "mcp": Lock(("mcp",), like="dev"),
    "ray": Lock(("ray",), like="dev"),
    "otel": Lock(("otel",), like="dev"),
    "tools": Lock(),
}


def wanted(lock: str, project: dict) -> list[str]:  # type: ignore[type-arg] # TOML
    """The requirements of pyproject.toml that a lock file answers."""
    if lock == "build":
        return ["pip", *project["build-system"]["requires"]]
    if lock == "tools":
        return list(project["dependency-groups"]["tools"])
    table = project["project"]
    lines = list(table["dependencies"]) if LOCKS[lock].base else []
    return lines + [line for extra in LOCKS[lock].extras for line in table["optional-dependencies"][extra]]


def project() -> dict:  # type: ignore[type-arg] # TOML
    """pyproject.toml."""
    return tomllib.loads((pins.FOLDER.parent / "pyproject.toml").read_text())


def make(lock: str, upgrade: bool) -> None:
    """Writes requirements/LOCK.txt: the versions it had where they still do, the newest with `upgrade`."""
    target = pins.FOLDER / f"{lock}.txt"
    like = LOCKS[lock].like
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/{lock}.txt"
        if target.exists():
            shutil.copy(target, out)
        uv(
            "compile",
            *("-", "--output-file", out, "--universal", "--python-version", covered.PYTHONS[0]),
            *(
                "--generate-hashes",
                "--only-binary",
                ":all:",
                "--fork-strategy",
                "fewest",
                "--no-header",
                "--no-annotate",
            ),
            *(("--constraints", str(pins.FOLDER / f"{like}.txt")) if like else ()),
            *(("--upgrade",) if upgrade else ()),
            text="\n".join(wanted(lock, project())),
        )
        with open(out) as made:
            text = HEADER + made.read()
    pins.parse(text, target.name)
    target.write_text(text)


def prove(lock: str) -> None:
    """Resolves a lock file, hashes and wheels only, on every Python and platform it is for; downloads no package."""
    with tempfile.TemporaryDirectory() as folder:
        for place in covered.ONLY.get(lock, covered.PLATFORMS):
            for python in covered.PYTHONS:
                uv(
                    "install",
                    *("--dry-run", "--target", folder, "--require-hashes", "--only-binary", ":all:"),
                    *("--python-platform", UV_PLATFORM[place], "--python-version", python),
                    *("--requirements", str(pins.FOLDER / f"{lock}.txt")),
                )


def uv(command: str, *arguments: str, text: str = "") -> None:
    """`uv pip COMMAND`; what it has to say is said where it fails."""
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": ".".join(map(str, covered.OLDEST["Darwin"]))}
    if command == "install":  # ranges of one's own shape what is locked; where hashes are required they are an error
        environment.pop("UV_CONSTRAINT", None)
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", command, "--quiet", *arguments],
        input=text,
        text=True,
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        sys.exit(f"uv pip {command} {' '.join(arguments)}\n{done.stderr or done.stdout}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="the newest versions that pyproject.toml allows")
    upgrade = parser.parse_args(arguments).upgrade
    for lock in LOCKS:
        make(lock, upgrade)
        prove(lock)
        places = ", ".join(covered.ONLY.get(lock, covered.PLATFORMS))
        print(f"requirements/{lock}.txt: {len(pins.read(lock))} packages; {places}; {', '.join(covered.PYTHONS)}")


if __name__ == "__main__":
    main()
