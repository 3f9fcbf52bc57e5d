"""The lines that build and name a release's images.

Knows nothing of Docker: nothing is run here.
"""

from requirements.release.checkout import Checkout

_SBOM = "docker run --rm --entrypoint cat {tag} /opt/tessera/sbom.cdx.json | sha256sum | cut -d' ' -f1"


def tags(version: str, rehearsal: bool) -> dict[str, list[str]]:
    """Image → its tags, the exact one first. Tags that move are a release's alone: the minor version, and `latest`."""
    moving = [] if rehearsal else [version.rpartition(".")[0]]
    return {
        "gpu": [f"tessera:{one}" for one in (version, *moving, *([] if rehearsal else ["latest"]))],
        "cpu": [f"tessera:{one}-cpu" for one in (version, *moving)],
        "training": [f"tessera:{one}-training" for one in (version, *moving)],
    }


def commands(version: str, found: Checkout, rehearsal: bool) -> str:
    """A shell script: each image built, then from the cache once more, labelled with its list of packages' digest."""
    options = {"gpu": "--build-arg RUNTIME=gpu", "cpu": "--build-arg RUNTIME=cpu", "training": "--target training"}
    lines = [
        f"# The images of {version}, from a checkout of {found.commit}. GPU: linux/amd64 alone, as",
        "# onnxruntime-gpu is; CPU and training: linux/arm64 too, each on a machine of its kind.",
        f"export SOURCE_DATE_EPOCH={found.epoch}",
    ]
    for image, names in tags(version, rehearsal).items():
        build = (
            f"docker build {options[image]} --build-arg VERSION={version} --build-arg REVISION={found.commit}"
            f" --tag {names[0]}"
        )
        digest = _SBOM.format(tag=names[0])
        lines += ["", f"{build} .", f'{build} --label "io.tessera.sbom.sha256=$({digest})" .']
        lines += [f"docker tag {names[0]} {name}" for name in names[1:]]
    return "\n".join(lines) + "\n"
