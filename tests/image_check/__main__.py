"""The Dockerfile built from a clean clone, and the image run as strictly as a cluster would run it.

    python -m tests.image_check [--target training] [--runtime gpu] [--tool ../shared/tools/image-check]

The clone has what is committed, and nothing else. The tool builds without a Docker daemon (buildah, on a stand-in for
the base image) and leaves `localhost/image-check`; then crun runs that: user 10001, no capability, a read-only root,
one volume. Exit code 0: all is as it should be; 1: something is not, and what; 2: this machine cannot do it.

Knows nothing of what is asked of a container.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.image_check.image import Image
from tests.image_check.service import service
from tests.image_check.training import training

ROOT = Path(__file__).parents[2]
MOST_MB = 560  # of the CPU's image over its base
_BUILD_S = 3600
_STORE = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}  # the tool's own


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.image_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tool", type=Path, default=ROOT.parent / "shared" / "tools" / "image-check")
    parser.add_argument("--target", choices=("service", "training"), default="service")
    parser.add_argument("--runtime", choices=("cpu", "gpu"), default="cpu", help="of the service")
    given = parser.parse_args()
    if problem := objection(given.tool):
        print(f"NOT CHECKED: {problem}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="image-check.") as folder:
        work = Path(folder)
        try:
            for line in check(given.tool.resolve(), given.target, given.runtime, work):
                print(line, flush=True)
        except AssertionError as error:
            print(f"WRONG: {error}", file=sys.stderr)
            return 1
    return 0


def objection(tool: Path) -> str:
    """Why nothing can be checked here; empty where it can."""
    if not os.access(tool, os.X_OK):
        return (
            f"{tool} is not there: it builds a Dockerfile without a Docker daemon and leaves localhost/image-check in"
            " buildah's store. Say where it is: make image-check IMAGE_CHECK=PATH"
        )
    if sys.platform != "linux" or os.geteuid() != 0:
        return "images are mounted and containers run here, which takes Linux and root"
    missing = [name for name in ("git", "buildah", "crun", "unshare") if shutil.which(name) is None]
    return f"{', '.join(missing)} is missing: apt-get install git buildah crun util-linux" if missing else ""


def check(tool: Path, target: str, runtime: str, work: Path) -> Iterator[str]:
    """Builds and runs it; a line for each thing that was seen. AssertionError: something is not as it should be."""
    clone = work / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), clone], check=True, timeout=120)
    commit = output("git", "-C", str(clone), "rev-parse", "HEAD")
    options = ["--build-arg", f"RUNTIME={runtime}", "--build-arg", f"REVISION={commit}"]
    built = subprocess.run(
        [tool, "--target", target, *options], cwd=clone, capture_output=True, text=True, check=False, timeout=_BUILD_S
    )
    assert built.returncode == 0, f"the build fails:\n{(built.stdout + built.stderr)[-6000:]}"
    (made,) = buildah("images", "--quiet", "--no-trunc", "localhost/image-check:latest").split()
    yield f"built the {target} image of {commit[:12]}"
    yield sizes(made, target, runtime)
    with mounted(made) as image:
        problems = [*image.problems(torch=target == "training")]
        labels = image.config["Labels"]
        if labels.get("org.opencontainers.image.revision") != commit:
            problems.append("the label of the revision is not the commit")
        assert not problems, "; ".join(problems)
        without = "" if target == "training" else "no torch, "
        yield f"{without}no compiler, not root; its list of packages is {labels['io.tessera.sbom']}"
        yield from training(image, work) if target == "training" else service(image, work, health(clone))


def sizes(made: str, target: str, runtime: str) -> str:
    """What buildah says of the image and of its base. AssertionError: the CPU's is larger than it may be."""
    base = re.search(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base, "the Dockerfile has no ARG PYTHON"
    listed = buildah("images", "--all", "--json")
    whole, below = (
        next(megabytes(one["size"]) for one in json.loads(listed) if matches(one))
        for matches in (
            lambda one: made.removeprefix("sha256:").startswith(one["id"]),
            lambda one: f"docker.io/library/python:{base[1]}-slim" in (one["names"] or ()),
        )
    )
    over = whole - below
    if (target, runtime) == ("service", "cpu"):
        assert over <= MOST_MB, f"the image is {over:.0f} MB over its base, and {MOST_MB} at most"
    return f"{whole:.0f} MB, {over:.0f} of them over the base's {below:.0f} (as `buildah images` counts)"


def megabytes(said: str) -> float:
    """Of a size as buildah prints it: `821 MB`, `6.1 GB`."""
    number, unit = said.split()
    return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]


@contextmanager
def mounted(made: str) -> Iterator[Image]:
    """An image's files, and its configuration."""
    container = buildah("from", "--pull-never", made)
    try:
        root = Path(buildah("mount", container))
        config = json.loads(buildah("inspect", "--type", "image", made))["OCIv1"]["config"]
        yield Image(root, config)
    finally:
        buildah("rm", container)


def health(clone: Path) -> list[str]:
    """The Dockerfile's health check, which OCI's images do not keep: its command."""
    found = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", (clone / "Dockerfile").read_text(), re.MULTILINE)
    assert found, "the Dockerfile has no health check"
    command: list[str] = json.loads(found[1])
    return command


def buildah(*arguments: str) -> str:
    return output("buildah", *arguments, **_STORE)


def output(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
