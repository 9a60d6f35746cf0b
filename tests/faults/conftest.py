"""One fleet with proxies for the whole folder. Tests that break something leave it whole again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fleet import Fleet, fleet


@pytest.fixture(scope="session")
def _running_fleet(tmp_path_factory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("proxied")) as running_fleet:
        running_fleet.gateway.tenant("fleet")
        running_fleet.gateway.wait_for_models(running_fleet.gateway.key("fleet"), "llama3.2:latest", "qwen3:8b")
        yield running_fleet


@pytest.fixture
def whole(_running_fleet) -> Iterator[Fleet]:
    """The fleet, with nothing wrong and its mocks as new."""
    _running_fleet.restore()
    yield _running_fleet
    _running_fleet.heal()
