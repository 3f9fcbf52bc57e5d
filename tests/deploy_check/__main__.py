"""deploy/kubernetes held against what the projects of its kinds publish.

    python -m tests.deploy_check
    python -m tests.deploy_check --rules     writes the operator's alert rules after deploy/prometheus/alerts.yml

Installs, into a folder that is removed afterwards, npm's @kubernetes-models for KEDA and Prometheus' operator, and
takes KServe's models out of PyPI's wheel of kserve; each then judges every manifest of its kinds, and a broken one of
each, which it has to refuse. Kubernetes' own kinds, and RayService, whose schema neither registry has, are judged by
`manifests.py` alone: RayService's configuration by Ray itself (tests/integration/test_kubernetes.py). What could not be
installed is said. The exit code is 1 where something is refused, or something broken is not.

Knows nothing of what the manifests should say.
"""

import copy
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from tests.deploy_check.manifests import NEWEST, OLDEST, RULES, Manifest, files, render, rules, validate

NPM = ("@kubernetes-models/keda@2.0.0", "@kubernetes-models/prometheus-operator@6.0.0")
KSERVE = "kserve==0.21.0"
_INSTALL_S = 180
_JUDGE = """
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { readFileSync } from "node:fs";
const kinds = { ScaledObject, ServiceMonitor, PrometheusRule };
const answers = JSON.parse(readFileSync(0, "utf8")).map((one) => {
  try { new kinds[one.kind](one).validate(); return null; } catch (error) { return String(error.message); }
});
console.log(JSON.stringify(answers));
"""
# Where a kind is broken, and by what.
BROKEN: dict[str, tuple[str, Any]] = {
    "ScaledObject": ("spec.minReplicaCount", "2"),
    "ServiceMonitor": ("spec.endpoints.0.interval", "15x"),
    "PrometheusRule": ("spec.groups.0.rules", "none"),
    "InferenceService": ("spec.predictor.canaryTraficPercent", 5),
}

Judge = Callable[[list[Manifest]], list[str | None]]


class NotHad(Exception):
    """What a judge needs could not be installed."""


def main() -> int:
    """The command of this file's first lines."""
    if sys.argv[1:] == ["--rules"]:
        RULES.write_text(rules(), encoding="utf-8")
        return 0
    every = [(path, one) for path, found in files().items() for one in found]
    failed = 0
    for overlay in ("cpu", "gpu"):
        for components in ([], ["keda", "monitoring", "egress"], ["one", "monitoring"]):
            every += [("+".join([overlay, *components]), one) for one in render(overlay, components)]
    for version in (OLDEST, NEWEST):
        for path, one in every:
            try:
                validate(one, version)
            except jsonschema.ValidationError as error:
                failed += 1
                print(f"✗ {path} {one['kind']} (Kubernetes {version}): {error.message}")
    print(f"{len(every)} manifests by Kubernetes {OLDEST} and {NEWEST}, and by our schemas of custom resources")
    with tempfile.TemporaryDirectory(prefix="deploy-check.") as name:
        for title, kinds, judge in judges(Path(name)):
            mine = [(path, one) for path, one in every if one["kind"] in kinds]
            broken = [_broken(one) for one in {one["kind"]: one for _, one in mine}.values()]
            try:
                answers = judge([*(one for _, one in mine), *broken])
            except NotHad as error:
                print(f"· {title}: NOT CHECKED: {error}")
                continue
            print(f"by {title}:")
            for (path, one), said in zip(mine, answers, strict=False):
                failed += said is not None
                print(f"{'✗' if said else '✓'} {one['kind']} of {path}{f': {said}' if said else ''}")
            for one, said in zip(broken, answers[len(mine) :], strict=True):
                failed += said is None
                print(f"{'✓' if said else '✗'} a broken {one['kind']} is refused: {said or 'it was not'}")
    return int(failed > 0)


def judges(folder: Path) -> list[tuple[str, list[str], Judge]]:
    """Who judges which kinds; each installs what it needs into the folder when it is asked. They raise NotHad."""

    def npm(manifests: list[Manifest]) -> list[str | None]:
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *NPM])
        (folder / "judge.mjs").write_text(_JUDGE)
        judged = subprocess.run(
            ["node", "judge.mjs"], cwd=folder, input=json.dumps(manifests), capture_output=True, text=True, timeout=60
        )
        if judged.returncode:
            raise NotHad(judged.stderr.strip()[-300:])
        answers: list[str | None] = json.loads(judged.stdout)
        return answers

    def kserve(manifests: list[Manifest]) -> list[str | None]:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), KSERVE])
        (wheel,) = folder.glob("kserve-*.whl")
        models = KServeModels(wheel)
        return [models.judge(one) for one in manifests]

    return [
        (", ".join(NPM), ["ScaledObject", "ServiceMonitor", "PrometheusRule"], npm),
        (KSERVE, ["InferenceService"], kserve),
    ]


class KServeModels:
    """The fields of KServe's models, as its package lists them. What is of Kubernetes itself is left to its schema."""

    def __init__(self, wheel: Path) -> None:
        self._fields: dict[str, dict[str, str]] = {}
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.fullmatch(r"kserve/models/v1beta1_\w+\.py", name):
                    self._read(archive.read(name).decode())

    def _read(self, text: str) -> None:
        tables = dict(re.findall(r"    (openapi_types|attribute_map) = \{(.*?)\n    \}", text, re.DOTALL))
        if (named := re.search(r"^class (\w+)\(", text, re.MULTILINE)) and len(tables) == 2:
            types, names = (
                dict(re.findall(r"'(\w+)': '([^']+)'", tables[t])) for t in ("openapi_types", "attribute_map")
            )
            self._fields[named[1]] = {names[python]: kind for python, kind in types.items()}

    def judge(self, manifest: Manifest) -> str | None:
        """What is wrong with it, if something is."""
        return self._wrong(manifest, "V1beta1InferenceService", manifest["kind"])

    def _wrong(self, value: Any, kind: str, at: str) -> str | None:
        if inner := re.fullmatch(r"list\[(.+)\]", kind):
            if not isinstance(value, list):
                return f"{at} is no list"
            found = (self._wrong(one, inner[1], f"{at}[{i}]") for i, one in enumerate(value))
            return next((said for said in found if said), None)
        if plain := {"int": int, "str": str, "bool": bool}.get(kind):
            return None if type(value) is plain else f"{at} is {value!r}, not {kind}"
        if kind not in self._fields:  # Kubernetes' own
            return None
        for name, inside in value.items():
            if name not in self._fields[kind]:
                return f"{at} has no {name}"
            if said := self._wrong(inside, self._fields[kind][name], f"{at}.{name}"):
                return said
        return None


def _broken(manifest: Manifest) -> Manifest:
    broken = copy.deepcopy(manifest)
    at, value = BROKEN[manifest["kind"]]
    *path, last = at.split(".")
    inside: Any = broken
    for step in path:
        inside = inside[int(step) if step.isdigit() else step]
    inside[last] = value
    return broken


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_INSTALL_S)
    except FileNotFoundError:
        raise NotHad(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotHad(f"{command[0]} took longer than {_INSTALL_S} s") from None
    except subprocess.CalledProcessError as error:
        raise NotHad((error.stderr or error.stdout).strip()[-300:]) from None


if __name__ == "__main__":
    sys.exit(main())
