"""The compose files as Compose itself reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.tools import READ_BY, SECRETS, run

OVERLAYS = ("dev", "demo", "gpu", "observability")
PLANES = ("dataplane", "controlplane")
ONE_OFF = {"migrate"}
ANSWERS = {"GATEWAY_DOMAIN": "gateway.example", "ACME_EMAIL": "operator@gateway.example"}


def composed(root: Path, *overlays: str) -> dict[str, Any]:
    """What Compose makes of the files, all profiles included."""
    files = [root / "compose.yml", *(root / "deploy" / f"compose.{name}.yml" for name in overlays)]
    named = [argument for file in files for argument in ("-f", file)]
    result = run("docker-compose", *named, "--profile", "*", "config", "--format", "json", **ANSWERS)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture(scope="module", params=["", *OVERLAYS])
def stack(request, root) -> dict[str, Any]:
    return composed(root, *filter(None, [request.param]))


@pytest.fixture(scope="module")
def production(root) -> dict[str, Any]:
    return composed(root)


def on_networks_of(stack: dict[str, Any], name: str) -> set[str]:
    """The services that share a network with one."""
    services = stack["services"]
    return {other for other in services if set(services[other]["networks"]) & set(services[name]["networks"])} - {name}


def test_every_service_is_confined(stack):
    for name, service in stack["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("network_mode") is None, name
        sources = {volume["source"] for volume in service.get("volumes", ())}
        assert not any("docker.sock" in source for source in sources), name


def test_only_caddy_has_a_capability(stack):
    added = {name: service["cap_add"] for name, service in stack["services"].items() if "cap_add" in service}
    assert added == {"caddy": ["NET_BIND_SERVICE"]}


def test_every_service_has_bounds_and_a_health_check(stack):
    for name, service in stack["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert (name in ONE_OFF) == bool(service["healthcheck"].get("disable")), name
        assert service["logging"]["options"]["max-size"], name


@pytest.mark.parametrize("overlays", [(), ("demo",), ("gpu",)])
def test_only_caddy_publishes_ports(root, overlays):
    services = composed(root, *overlays)["services"]
    published = {name: {port["published"] for port in one["ports"]} for name, one in services.items() if "ports" in one}
    assert published == {"caddy": {"80", "443"}}


def test_the_development_stack_publishes_on_loopback_alone(root):
    services = composed(root, "dev")["services"]
    assert services["caddy"]["profiles"] == ["edge"]
    ports = [port for name, one in services.items() if name != "caddy" for port in one.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert {port["target"] for port in ports} == {8080, 9090}


def test_the_dashboard_is_published_on_loopback_and_metrics_nowhere(root):
    stack = composed(root, "observability")
    services = stack["services"]
    published = {name: one["ports"] for name, one in services.items() if "ports" in one and name != "caddy"}
    assert published.keys() == {"grafana"}
    assert {port["host_ip"] for port in published["grafana"]} == {"127.0.0.1"}
    assert on_networks_of(stack, "prometheus") == {*PLANES, "grafana"}
    jobs = yaml.safe_load((root / "deploy" / "observability" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {job["dns_sd_configs"][0]["names"][0]: job["dns_sd_configs"][0]["port"] for job in jobs}
    bound = {plane: int(services[plane]["environment"]["GATEWAY_METRICS_BIND"].rpartition(":")[2]) for plane in PLANES}
    assert scraped == bound


def test_nothing_but_the_planes_can_reach_ollama(production):
    assert on_networks_of(production, "ollama") == set(PLANES)
    assert all(production["networks"][name]["internal"] for name in production["services"]["ollama"]["networks"])


def test_each_plane_reaches_what_is_its_business(production):
    assert on_networks_of(production, "postgres") == {"controlplane", "migrate"}
    assert on_networks_of(production, "redis") == set(PLANES)
    assert on_networks_of(production, "caddy") == {"dataplane", "pull"}
    reached = {name for name in production["services"] if "public" in production["services"][name]["networks"]}
    assert reached == {"caddy", "pull"}
    outward = {name for name, network in production["networks"].items() if not network.get("internal")}
    assert outward == {"public"}


def test_there_are_two_of_each_plane(production):
    assert {name: production["services"][name]["deploy"]["replicas"] for name in PLANES} == dict.fromkeys(PLANES, 2)
    assert all("container_name" not in service for service in production["services"].values())


def test_every_variable_of_a_plane_is_one_that_it_reads(stack):
    for plane in PLANES:
        unknown = stack["services"][plane]["environment"].keys() - READ_BY[plane]
        assert unknown == set(), plane


def test_no_secret_stands_in_an_environment(stack):
    for name, service in stack["services"].items():
        assert service.get("environment", {}).keys() & SECRETS == set(), name


def test_secrets_are_files_that_only_those_who_read_them_have(production):
    holders: dict[str, set[str]] = {}
    for name, service in production["services"].items():
        for secret in service.get("secrets", ()):
            holders.setdefault(secret["source"], set()).add(name)
    assert holders.keys() == production["secrets"].keys()
    assert holders["database_url"] == {"controlplane"}
    assert holders["owner_database_url"] == {"migrate"}
    assert holders["admin_token"] == {"controlplane"}
    for plane in PLANES:
        service = production["services"][plane]
        files = {value for key, value in service["environment"].items() if key.endswith("_FILE")}
        assert files == {f"/run/secrets/{secret['source']}" for secret in service["secrets"]}


def test_a_plane_has_the_time_to_drain(production):
    from dataplane.__main__ import KILL_GRACE_S
    from dataplane.config import Settings
    from shared.config import declared

    drain_s = next(item.default for item in declared(Settings) if item.setting.name == "GATEWAY_DRAIN_TIMEOUT_S")
    assert production["services"]["dataplane"]["stop_grace_period"] == "50s"
    assert drain_s + KILL_GRACE_S < 50


def test_the_discovered_models_outlive_an_outage_of_the_control_plane(production):
    environment = production["services"]["controlplane"]["environment"]
    assert environment["MODEL_DISCOVERY_CACHE_TTL_S"] == "900"


@pytest.mark.parametrize("missing", ANSWERS)
def test_what_has_no_default_is_asked_for(root, missing):
    answers = {name: value for name, value in ANSWERS.items() if name != missing}
    result = run("docker-compose", "-f", root / "compose.yml", "config", "--quiet", **answers)
    assert result.returncode != 0
    assert missing in result.stderr


def test_the_demo_differs_from_production_in_the_mock_and_the_playground_alone(root, production):
    demo = composed(root, "demo")["services"]
    changed = {name for name, service in production["services"].items() if demo[name] != service}
    assert changed == {"dataplane", "controlplane", "ollama"}
    assert demo["ollama"]["networks"] == production["services"]["ollama"]["networks"]
    assert demo["dataplane"]["environment"]["PLAYGROUND_ENABLED"] == "true"
    assert production["services"]["dataplane"]["environment"]["PLAYGROUND_ENABLED"] == "false"


def test_no_two_services_build_one_image(stack):
    built = [service["image"] for service in stack["services"].values() if "build" in service]
    assert len(built) == len(set(built))
    assert all(service.get("image") for service in stack["services"].values())


def test_the_files_that_are_mounted_and_built_from_exist(root, stack):
    for service in stack["services"].values():
        if "build" in service:
            assert Path(service["build"]["context"]) == root
            assert (root / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            assert volume["type"] == "volume" or (Path(volume["source"]).is_file() and volume["read_only"])
