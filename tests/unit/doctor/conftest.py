from __future__ import annotations

import secrets

import pytest

from controlplane.doctor import Deployment
from tests.integration.servers import environment


@pytest.fixture
def environ() -> dict[str, str]:
    """A sound environment; nobody answers at its addresses."""
    return environment(
        "postgres://gateway_control:word@127.0.0.1:1/gateway",
        "redis://gateway_controlplane:word@127.0.0.1:1/0",
        GATEWAY_KEY_PEPPER=secrets.token_urlsafe(32),
        GATEWAY_SEALING_KEY=secrets.token_urlsafe(32),
        GATEWAY_ADMIN_TOKEN=secrets.token_urlsafe(32),
    )


@pytest.fixture
def deployment(environ: dict[str, str]) -> Deployment:
    return Deployment.read(environ)
