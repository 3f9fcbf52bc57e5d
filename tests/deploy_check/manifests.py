"""What deploy/kubernetes says: its documents, as they lie and as kustomize puts them together, held against schemas.

Knows nothing of what they should say.
"""

import os
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

Manifest = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
NEWEST = all_versions()[-1]
OLDEST = "1.29.0"  # since 1.27 a topology is spread within one rollout
RULES = FOLDER / "components" / "monitoring" / "prometheusrule.yaml"
_ALERTS = FOLDER.parent / "prometheus" / "alerts.yml"
_CUSTOM = Path(__file__).parents[1] / "integration" / "data" / "custom_resources.yaml"
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"


def documents(text: str) -> list[Manifest]:
    """The manifests of a YAML text. What kustomize or a chart reads is none."""
    found = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    return [one for one in found if "metadata" in one and not str(one["apiVersion"]).startswith("kustomize.")]


def files() -> dict[str, list[Manifest]]:
    """The whole manifests by their file's path below the folder; patches, which are parts of one, left out."""
    patches = {
        folder.parent / patch["path"]
        for folder in FOLDER.rglob("kustomization.yaml")
        for patch in yaml.safe_load(folder.read_text()).get("patches", ())
        if "path" in patch
    }
    every = {path: documents(path.read_text()) for path in sorted(FOLDER.rglob("*.yaml")) if path not in patches}
    return {str(path.relative_to(FOLDER)): found for path, found in every.items() if found}


def render(overlay: str, components: Sequence[str] = ()) -> list[Manifest]:
    """What `kubectl apply -k` would send: an overlay, with components laid over it. Raises CalledProcessError."""
    if not components:
        return documents(_kustomize(FOLDER / "overlays" / overlay))
    with tempfile.TemporaryDirectory(prefix="overlay.") as name:
        here = Path(name).resolve()
        laid = {
            "resources": [os.path.relpath(FOLDER / "overlays" / overlay, here)],
            "components": [os.path.relpath(FOLDER / "components" / one, here) for one in components],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(laid))
        return documents(_kustomize(here))


def _kustomize(folder: Path) -> str:
    command = ["kubectl", "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def rules() -> str:
    """The alert rules of deploy/prometheus as Prometheus' operator wants them, which kustomize cannot do."""
    groups = textwrap.indent("groups:" + _ALERTS.read_text(encoding="utf-8").partition("\ngroups:")[2], "  ")
    return (
        "# deploy/prometheus/alerts.yml for the operator: python -m tests.deploy_check --rules\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: tessera\nspec:\n" + groups
    )


def validate(manifest: Manifest, version: str = NEWEST) -> None:
    """Raises jsonschema.ValidationError where a manifest is not as Kubernetes, or the project of its kind, wants it."""
    custom = _custom().get(manifest["kind"])
    if custom is None:
        group = manifest["apiVersion"].split("/")
        name = "-".join([manifest["kind"].lower(), *([group[0].split(".")[0]] if len(group) > 1 else []), group[-1]])
        schema = schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)
    else:
        schema = {
            "$id": "https://kubernetes.io/api/custom",
            "$defs": _custom()["$defs"],
            "type": "object",
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "additionalProperties": False,
            "properties": {
                "apiVersion": {"const": custom["apiVersion"]},
                "kind": {"const": manifest["kind"]},
                "metadata": {"$ref": "definitions#io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                "spec": custom["spec"],
            },
        }
    jsonschema.Draft202012Validator(_resolved(schema), registry=_registry(version)).validate(manifest)


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """The pod specs in a manifest, however deep."""
    for value in manifest.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                if "containers" in part:
                    yield part
                else:
                    yield from pods(part)


@lru_cache
def _custom() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_CUSTOM.read_text())
    return loaded


@lru_cache
def _registry(version: str) -> Registry[Any]:
    contents = schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return Registry().with_resource(_DEFINITIONS, Resource.from_contents(contents, DRAFT202012))


def _resolved(schema: Any) -> Any:
    """With `definitions#NAME` as the address that it stands for."""
    if isinstance(schema, list):
        return [_resolved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{_DEFINITIONS}#/$defs/{value.removeprefix('definitions#')}"
        if key == "$ref" and str(value).startswith("definitions#")
        else _resolved(value)
        for key, value in schema.items()
    }
