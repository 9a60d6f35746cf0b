"""What can be read of settings is used; what cannot be is said."""

from __future__ import annotations

import pytest

from controlplane.doctor import Deployment, Status
from controlplane.doctor.deployment import settings
from shared.config import ConfigurationError


def test_sound_settings_are_well(deployment):
    assert [finding.status for finding in settings(deployment)] == [Status.OK]


def test_every_fault_is_a_finding_and_no_value_of_a_secret_is_shown(environ):
    faulty = environ | {"GATEWAY_KEY_PEPPER": "too-short", "MODEL_DISCOVERY_REFRESH_S": "never"}

    found = settings(Deployment.read(faulty))

    assert [finding.status for finding in found] == [Status.FAILED] * 2
    assert any("MODEL_DISCOVERY_REFRESH_S" in finding.seen for finding in found)
    assert "too-short" not in repr(found)


def test_settings_that_are_missing_are_named_and_the_rest_is_known(environ):
    del environ["DATABASE_URL"], environ["GATEWAY_SEALING_KEY"]

    deployment = Deployment.read(environ)

    assert deployment.database_url is None
    assert deployment.sealer is None
    assert deployment.redis_url is not None
    (found,) = settings(deployment)
    assert (found.status, found.seen) == (Status.SKIPPED, "not set here: DATABASE_URL, GATEWAY_SEALING_KEY")


def test_an_environment_without_any_server_describes_no_deployment():
    with pytest.raises(ConfigurationError) as refused:
        Deployment.read({"GATEWAY_ADMIN_TOKEN": "a-token-for-this-test"})

    assert len(refused.value.faults) == 2


def test_only_a_control_plane_has_the_default_backend(environ):
    assert [backend.name for backend in Deployment.read(environ).static_backends] == ["default"]
    del environ["DATABASE_URL"]
    assert Deployment.read(environ).static_backends == ()
    assert Deployment.read(environ | {"OLLAMA_BASE_URL": "http://gpu-1:11434"}).static_backends


def test_a_backend_that_cannot_be_made_is_a_fault_and_no_traceback(environ):
    deployment = Deployment.read(environ | {"OLLAMA_BASE_URL": "ftp://somewhere"})

    assert deployment.static_backends == ()
    assert "OLLAMA_BASE_URL" in settings(deployment)[0].seen
