"""deploy/kubernetes: against the schemas of its kinds, against our settings and routes; wrong edits are refused.

What a cluster does with it is not tried here: there is none.
"""

import copy
import re
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.api.protocols.open_inference import routes as open_inference
from service.api.routes import health
from service.app import create_app
from service.settings import PREFIX, Settings
from tests.deploy_check.manifests import (
    FOLDER,
    NEWEST,
    OLDEST,
    RULES,
    Manifest,
    documents,
    files,
    pods,
    render,
    rules,
    validate,
)

ROOT = Path(__file__).parents[2]
END_S = 4  # for the app's own end, and the interpreter's
LABELS = {"app.kubernetes.io/name": "tessera"}
kustomized = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, for its kustomize")


@lru_cache
def manifests() -> dict[tuple[str, str], Manifest]:
    return {(path, one["kind"]): one for path, found in files().items() for one in found}


def of(kind: str) -> Manifest:
    """The one that is not an example or of a component."""
    (found,) = (one for (path, named), one in manifests().items() if named == kind and path.startswith("base/"))
    return found


def pod() -> Manifest:
    (found,) = pods(of("Deployment"))
    return found


def environment(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def settings() -> Settings:
    return Settings.from_env({**environment((FOLDER / "base" / "settings.env").read_text()), "HOME": "/"})


def test_every_manifest_follows_the_schema_of_its_kind() -> None:
    assert len(manifests()) >= 13
    for one in manifests().values():
        validate(one)


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        ("Deployment", "spec.template.spec.containers.0.livenesProbe", {"httpGet": {"path": "/livez", "port": "http"}}),
        ("Deployment", "spec.template.spec.containers.0.ports.0.containerPort", "8000"),
        ("Deployment", "spec.selector", None),
        ("HorizontalPodAutoscaler", "spec.minReplicas", "two"),
        ("HorizontalPodAutoscaler", "spec.metrics.0.pods.metric", None),
        ("NetworkPolicy", "spec.ingress.0.form", []),
        ("PodDisruptionBudget", "spec.maxUnavailble", 1),
        ("ScaledObject", "spec.minReplicas", 2),
        ("ScaledObject", "spec.triggers.0.metadata.threshold", 4),
        (
            "ScaledObject",
            "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies.0.periodSeconds",
            "60",
        ),
        ("ServiceMonitor", "spec.endpoints.0.interval", "15"),
        ("PrometheusRule", "spec.groups.0.rules.0.alret", "TesseraDown"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "1 minute"),
        ("InferenceService", "spec.predictor.canaryTrafficPercent", 110),
        ("InferenceService", "spec.predictor.containers.0.readinesProbe", {}),
        ("RayService", "spec.rayClusterConfig.workerGroupSpecs.0.maxReplicas", None),
        ("RayService", "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.image", 7),
        ("RayService", "spec.rayClusterConfig.headGroupSpec.rayStartParams.num-cpus", 0),
        ("Service", "apiVersion", "apps/v1"),
    ],
)
def test_a_wrong_edit_is_refused(kind: str, at: str, value: Any) -> None:
    (one, *_) = (one for (_, named), one in manifests().items() if named == kind)
    broken = copy.deepcopy(one)
    *path, last = [int(step) if step.isdigit() else step for step in at.split(".")]
    inside: Any = broken
    for step in path:
        inside = inside[step]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    with pytest.raises((jsonschema.ValidationError, FileNotFoundError)):
        validate(broken)


def test_the_probes_ask_the_right_port_and_the_service_leads_to_it() -> None:
    (container,) = pod()["containers"]
    (port,) = container["ports"]
    assert container["args"] == ["serve", "--host", "0.0.0.0", "--port", str(port["containerPort"])]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert [probe["path"] for probe in probes.values()] == ["/readyz", "/readyz", "/livez"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    service, rules = of("Service")["spec"], of("NetworkPolicy")["spec"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert rules["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    monitor = manifests()["components/monitoring/servicemonitor.yaml", "ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= of("Service")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["ports"][0]["name"]
    template = of("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert template == LABELS
    selectors = (
        service["selector"],
        of("Deployment")["spec"]["selector"]["matchLabels"],
        of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        rules["podSelector"]["matchLabels"],
        manifests()["components/egress/network.yaml", "NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod()["topologySpreadConstraints"]),
    )
    assert all(selector == LABELS for selector in selectors)


def test_what_is_mounted_is_there_and_can_be_read() -> None:
    (container,) = pod()["containers"]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert (
        volumes[mounts["/var/lib/tessera"]]["persistentVolumeClaim"]["claimName"]
        == of("PersistentVolumeClaim")["metadata"]["name"]
    )
    assert pod()["serviceAccountName"] == of("ServiceAccount")["metadata"]["name"]
    secret = volumes[mounts["/etc/tessera"]]["secret"]
    assert secret["defaultMode"] & 0o040  # its group, fsGroup, reads it
    for file in (settings().keys_file, settings().admin_key_file):
        assert file is not None
        assert str(file.parent) in mounts
        assert f"--from-file={file.name}" in (ROOT / "docs" / "kubernetes.md").read_text()


def test_a_pod_that_ends_serves_until_it_is_forgotten_and_finishes_what_came() -> None:
    """One clock counts from SIGTERM: lame duck, the last request's whole time, the end; the grace is longer."""
    here = settings()
    assert here.lame_duck_s is not None
    assert here.lame_duck_s >= 5
    assert here.drain_s >= here.lame_duck_s + here.body_timeout_s + here.timeout_s
    (container,) = pod()["containers"]
    hook = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert "preStop" not in container.get("lifecycle", {}) or hook  # what else it did could take any time
    assert pod()["terminationGracePeriodSeconds"] >= hook + here.drain_s + END_S
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= here.lame_duck_s


def test_no_pod_is_told_of_services_by_variables() -> None:
    for one in manifests().values():
        assert all(found["enableServiceLinks"] is False for found in pods(one))


def restricted(spec: Manifest) -> list[str]:
    """What the Pod Security Standard `restricted` would refuse."""
    inherited = spec.get("securityContext", {})
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    said = [f"{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    said += [f"volume {volume['name']}" for volume in spec.get("volumes", ()) if not set(volume) - {"name"} <= kinds]
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        own = {**inherited, **container.get("securityContext", {})}
        added = set(own.get("capabilities", {}).get("add", ()))
        checks = {
            "privileged": not own.get("privileged"),
            "runAsNonRoot": own.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "seccompProfile": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in own.get("capabilities", {}).get("drop", ()) and added <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
        }
        said += [f"{container['name']}: {name}" for name, kept in checks.items() if not kept]
    return said


def test_pods_are_as_the_standard_restricted_wants_them() -> None:
    found = [spec for one in manifests().values() for spec in pods(one)]
    assert len(found) == 4
    assert [restricted(spec) for spec in found] == [[]] * 4
    assert of("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod()["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert of("ServiceAccount")["automountServiceAccountToken"] is pod()["automountServiceAccountToken"] is False
    loose = copy.deepcopy(found[0])
    loose["securityContext"]["runAsNonRoot"] = False
    loose["volumes"].append({"name": "disk", "hostPath": {"path": "/"}})
    assert restricted(loose) == ["volume disk", "tessera: runAsNonRoot"]


def test_nobody_is_let_out_but_to_ask_for_names() -> None:
    rules = of("NetworkPolicy")["spec"]
    assert sorted(rules["policyTypes"]) == ["Egress", "Ingress"]
    (out,) = rules["egress"]
    assert {(port["protocol"], port["port"]) for port in out["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert all("to" in rule for rule in [out])  # a rule without it leads anywhere


def test_who_scales_asks_for_a_metric_that_there_is() -> None:
    (metric,) = of("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    shown = create_app(Settings()).state.tessera.metrics.text().decode()
    assert f"# TYPE {name} gauge" in shown
    (rule,) = yaml.safe_load((FOLDER / "examples" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert re.fullmatch(rule["name"]["matches"], name)
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(name + "{")
    keda = manifests()["components/keda/scaledobject.yaml", "ScaledObject"]["spec"]
    (trigger,) = keda["triggers"]
    assert re.findall(r"tessera_\w+", trigger["metadata"]["query"]) == [name]
    ours = of("HorizontalPodAutoscaler")["spec"]
    assert trigger["metadata"]["threshold"] == metric["pods"]["target"]["averageValue"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (ours["minReplicas"], ours["maxReplicas"])
    assert keda["scaleTargetRef"]["name"] == ours["scaleTargetRef"]["name"] == of("Deployment")["metadata"]["name"]
    assert "replicas" not in of("Deployment")["spec"]  # it would be set back at each apply


def test_the_operators_alerts_are_those_of_compose() -> None:
    assert RULES.read_text(encoding="utf-8") == rules(), "run: python -m tests.deploy_check --rules"
    one = manifests()["components/monitoring/prometheusrule.yaml", "PrometheusRule"]
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert one["spec"] == alerts
    assert {rule["alert"] for group in alerts["groups"] for rule in group["rules"]} >= {"TesseraDown", "TesseraSlow"}
    assert of("Service")["metadata"]["name"] == "tessera"  # the job that the alerts ask for


def test_kserves_predictor_is_our_server() -> None:
    predictor = manifests()["examples/kserve.yaml", "InferenceService"]["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"  # what KServe looks for
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    here = Settings.from_env({name: value for name, value in given.items() if name.startswith(PREFIX)})
    assert given["PROTOCOL"] == "v2"
    assert here.bundles == (Path("/mnt/models"),)
    assert predictor["timeout"] >= here.drain_s + END_S
    (port,) = container["ports"]
    assert container["args"][container["args"].index("--port") + 1] == str(port["containerPort"])
    routes = {getattr(route, "path", None) for room in (health, open_inference) for route in room.router.routes}
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port["containerPort"]
        assert container[probe]["httpGet"]["path"] in routes


@kustomized
@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
@pytest.mark.parametrize("components", [[], ["keda", "monitoring", "egress"], ["one", "monitoring"]], ids="+".join)
def test_what_kustomize_makes_follows_the_schemas_too(overlay: str, components: list[str]) -> None:
    made = render(overlay, components)
    for one in made:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "tessera"
        for version in (OLDEST, NEWEST):
            validate(one, version)
    kinds = [one["kind"] for one in made]
    parts = {one["kind"]: one for one in made if kinds.count(one["kind"]) == 1}
    spec = parts["Deployment"]["spec"]
    (found,) = pods(parts["Deployment"])
    (container,) = found["containers"]
    assert restricted(found) == []
    assert container["image"] == f"tessera:{overlay}"
    assert container["envFrom"] == [{"configMapRef": {"name": parts["ConfigMap"]["metadata"]["name"]}}]
    assert Settings.from_env({**parts["ConfigMap"]["data"], "HOME": "/"}) == settings()
    (access,) = parts["PersistentVolumeClaim"]["spec"]["accessModes"]
    alone = "one" in components
    assert (access, spec.get("replicas"), spec["strategy"].get("type")) == (
        ("ReadWriteOnce", 1, "Recreate") if alone else ("ReadWriteMany", None, None)
    )
    assert "rollingUpdate" not in spec["strategy"] or not alone
    assert ("HorizontalPodAutoscaler" in kinds) == (not components)
    assert ("ScaledObject" in kinds) == ("keda" in components)
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (1 if overlay == "gpu" else None)
    assert (
        container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"]
    )  # as many threads as cores


@pytest.mark.slow
def test_rays_configuration_is_one_that_ray_and_our_application_take() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    ray_app = pytest.importorskip("service.ray_app")
    made = manifests()["examples/rayservice.yaml", "RayService"]["spec"]
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(made["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert module == ray_app.__name__
    assert callable(getattr(ray_app, name))
    arguments = ray_app.read(application.args)
    here = Settings.from_env({k: v for k, v in application.runtime_env["env_vars"].items() if k.startswith(PREFIX)})
    cluster = made["rayClusterConfig"]
    assert cluster["rayVersion"] == pytest.importorskip("ray").__version__
    (group,) = cluster["workerGroupSpecs"]
    from service.replica import shortest_shutdown_s

    (worker,) = pods(group)
    (waits,) = [
        float(one["value"])
        for one in worker["containers"][0]["env"]
        if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    ]
    assert worker["terminationGracePeriodSeconds"] > waits > shortest_shutdown_s(here)
    assert arguments.num_replicas <= group["minReplicas"] <= group["maxReplicas"]
    assert float(worker["containers"][0]["resources"]["limits"]["cpu"]) >= arguments.num_cpus


def test_manifests_are_told_from_patches_and_values() -> None:
    assert documents("a: 1\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}") == [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    ]
    assert not any(path.endswith(("gpu.yaml", "one.yaml", "prometheus-adapter.yaml")) for path in files())
