import json
import sys

import pytest

from deploy.local.options import Options
from deploy.local.ports import PortBook
from deploy.local.programs import Planner, Stores
from deploy.local.state import Secrets


@pytest.fixture
def plan(tmp_path):
    def make(**options):
        return Planner(
            Options(state=tmp_path, **options),
            secrets=Secrets(tmp_path / "secrets.json"),
            ports=PortBook(tmp_path / "ports.json"),
            stores=Stores(
                redis_of_data="redis://data:r@127.0.0.1:1/0",
                redis_of_control="redis://control:r@127.0.0.1:1/0",
                postgres_of_control="postgres://control:p@127.0.0.1:2/gateway",
                postgres_of_owner="postgres://gateway:p@127.0.0.1:2/gateway",
            ),
        )

    return make


def test_backends_keep_the_order_of_the_command_line(plan):
    planner = plan(backends=(("near", "http://a:1"), ("far", "http://b:2")))
    (control,) = planner.control_planes(None)
    assert json.loads(control.environment["OLLAMA_BACKENDS"]) == [
        {"name": "near", "url": "http://a:1"},
        {"name": "far", "url": "http://b:2"},
    ]


def test_without_backends_the_environment_names_the_server_and_its_token(plan, monkeypatch):
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://gpu:11434")
    monkeypatch.setenv("OLLAMA_AUTH_TOKEN", "t0ken")
    (control,) = plan().control_planes(None)
    assert control.environment["OLLAMA_BASE_URL"] == "http://gpu:11434"
    assert control.environment["OLLAMA_AUTH_TOKEN"] == "t0ken"


def test_without_backends_and_environment_it_is_the_local_server(plan, monkeypatch):
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    (control,) = plan().control_planes(None)
    assert control.environment["OLLAMA_BASE_URL"] == "http://127.0.0.1:11434"


def test_the_mock_is_the_only_backend_of_the_demo(plan):
    planner = plan(mock=True, backends=(("real", "http://a:1"),))
    mock = planner.mock()
    (control,) = planner.control_planes(mock)
    assert json.loads(control.environment["OLLAMA_BACKENDS"]) == [{"name": "demo", "url": mock.url}]


def test_a_data_plane_knows_every_control_plane_and_nothing_of_postgres(plan):
    planner = plan(replicas=2, control_replicas=2)
    control_planes = planner.control_planes(None)
    for plane in planner.data_planes(control_planes):
        assert plane.environment["GATEWAY_CONTROL_ADDRESSES"] == ",".join(one.address for one in control_planes)
        assert "DATABASE_URL" not in plane.environment
        assert "GATEWAY_ADMIN_TOKEN" not in plane.environment


def test_every_replica_has_ports_of_its_own(plan):
    planner = plan(replicas=3, control_replicas=2)
    control_planes = planner.control_planes(None)
    planes = [*control_planes, *planner.data_planes(control_planes)]
    addresses = [plane.address for plane in planes] + [plane.environment["GATEWAY_METRICS_BIND"] for plane in planes]
    assert len(set(addresses)) == len(addresses)


def test_settings_of_the_command_line_win(plan):
    settings = {"GATEWAY_LOG_LEVEL": "DEBUG", "REDIS_URL": "redis://proxy:1/0", "PLAYGROUND_ENABLED": "false"}
    planner = plan(settings=settings)
    control_planes = planner.control_planes(None)
    (data,) = planner.data_planes(control_planes)
    for plane in (*control_planes, data):
        assert settings.items() <= plane.environment.items()
    assert not data.has_playground


def test_the_environment_of_the_person_stays_out(plan, monkeypatch):
    monkeypatch.setenv("GATEWAY_LOG_FORMAT", "console")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    (control,) = plan().control_planes(None)
    assert control.environment["GATEWAY_LOG_FORMAT"] == "json"
    assert "HTTPS_PROXY" not in control.environment


def test_planes_run_on_this_interpreter(plan):
    (control,) = plan().control_planes(None)
    assert control.command == (sys.executable, "-P", "-m", "controlplane")


def test_each_program_has_the_credentials_of_its_own_kind_and_no_other(plan):
    planner = plan(replicas=2, control_replicas=2)
    control_planes = planner.control_planes(None)
    _, migration = planner.migration()
    assert migration["DATABASE_URL"].startswith("postgres://gateway:")
    assert "REDIS_URL" not in migration
    for plane in control_planes:
        assert plane.environment["DATABASE_URL"].startswith("postgres://control:")
        assert plane.environment["REDIS_URL"].startswith("redis://control:")
    for plane in planner.data_planes(control_planes):
        assert plane.environment["REDIS_URL"].startswith("redis://data:")
        assert not any("postgres" in value for value in plane.environment.values())
