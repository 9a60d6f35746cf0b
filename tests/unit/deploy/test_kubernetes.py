"""The Kubernetes example against the schemas of Kubernetes, and against what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.unit.deploy.tools import READ_BY, SECRETS

SCHEMAS = "1.34"


def documents(root: Path) -> list[dict[str, Any]]:
    folder = root / "deploy" / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    return [document for name in listed for document in yaml.safe_load_all((folder / name).read_text())]


def named(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents(root) if one["kind"] == kind}


def workloads(root: Path) -> dict[str, dict[str, Any]]:
    return named(root, "Deployment") | named(root, "StatefulSet") | named(root, "Job")


def test_every_document_has_the_form_that_kubernetes_asks_for(root):
    for document in documents(root):
        kubernetes_validate.validate(document, SCHEMAS, strict=True)


def test_every_pod_is_confined(root):
    assert workloads(root).keys() == {"dataplane", "controlplane", "ollama", "migrate"}
    for name, workload in workloads(root).items():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert workload["kind"] == "Job" or {"livenessProbe", "readinessProbe"} <= container.keys(), name


@pytest.mark.parametrize("plane", ["dataplane", "controlplane"])
def test_every_variable_is_one_that_the_plane_reads(root, plane):
    [container] = workloads(root)[plane]["spec"]["template"]["spec"]["containers"]
    names = {one["name"] for one in container["env"]}
    values = " ".join(str(one.get("value", "")) for one in container["env"])
    referenced = {name for name in names if f"$({name})" in values}
    assert names - READ_BY[plane] - referenced == set()
    assert names & SECRETS == set()


def test_the_data_plane_scales_by_requests_in_flight(root):
    from dataplane import readings

    scaler = named(root, "HorizontalPodAutoscaler")["dataplane"]["spec"]
    [metric] = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name == "gateway_requests_in_flight"
    assert f'"{name}"' in Path(readings.__file__).read_text()
    assert "replicas" not in workloads(root)["dataplane"]["spec"], "the scaler decides"
    assert scaler["minReplicas"] >= 2


def test_each_plane_keeps_a_replica_through_a_disruption(root):
    assert named(root, "PodDisruptionBudget").keys() == {"dataplane", "controlplane"}


def test_only_the_planes_reach_ollama_and_ollama_reaches_nobody(root):
    policies = named(root, "NetworkPolicy")
    assert policies["deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ollama = policies["ollama"]["spec"]
    assert "egress" not in ollama
    [rule] = ollama["ingress"]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["dataplane", "controlplane"]
    assert "ollama" not in policies["names"]["spec"]["podSelector"]["matchExpressions"][0]["values"]


def test_nothing_is_exposed_by_a_service(root):
    assert {service["spec"].get("type", "ClusterIP") for service in named(root, "Service").values()} == {"ClusterIP"}
