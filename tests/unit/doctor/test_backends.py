"""Backends that cannot be used, or that others can use, are found."""

from __future__ import annotations

import ipaddress

import pytest

from controlplane.doctor import Status, backends
from controlplane.doctor.checks import run
from controlplane.ollama.client import OllamaClient, Target
from deploy.mock_ollama import MockOllama
from deploy.mock_ollama.settings import Settings

TOKEN = "a-token-for-this-test"
CREDENTIAL = ("Authorization", f"Bearer {TOKEN}")


@pytest.fixture(scope="module")
def client() -> OllamaClient:
    return OllamaClient()


async def looked_at(client: OllamaClient, url: str, credential: tuple[str, str] | None = None) -> dict[str, Status]:
    target = Target(name="b", url=url, credential=credential)
    found = await run(backends.checks(client, [target]), timeout_s=5)
    assert TOKEN not in repr(found)
    return {finding.name.removeprefix("backends.b."): finding.status for finding in found}


async def test_a_backend_on_loopback_with_models_and_without_cloud_is_well(client):
    async with MockOllama() as mock:
        assert set((await looked_at(client, mock.url)).values()) == {Status.OK}


async def test_a_backend_behind_a_token_is_well_with_it_and_failed_without(client):
    async with MockOllama(settings=Settings(token=TOKEN)) as mock:
        assert set((await looked_at(client, mock.url, CREDENTIAL)).values()) == {Status.OK}

        found = await looked_at(client, mock.url)
        assert (found["models"], found["cloud"]) == (Status.FAILED, Status.SKIPPED)


async def test_a_backend_that_answers_without_its_token_is_found(client):
    async with MockOllama() as mock:
        assert (await looked_at(client, mock.url, CREDENTIAL))["exposure"] is Status.FAILED


async def test_a_backend_that_is_down_is_found(client):
    async with MockOllama() as mock:
        url = mock.url

    found = await looked_at(client, url)

    assert (found["models"], found["cloud"]) == (Status.FAILED, Status.SKIPPED)


async def test_a_backend_without_models_or_with_its_cloud_is_warned_of(client):
    async with MockOllama(models=[], settings=Settings(cloud_disabled=False)) as mock:
        found = await looked_at(client, mock.url)

    assert (found["models"], found["cloud"]) == (Status.WARNING, Status.WARNING)


async def test_a_backend_on_loopback_that_listens_beyond_it_is_warned_of(client, monkeypatch):
    # The other loopback addresses stand in for the network: a test must not listen on it.
    monkeypatch.setattr(backends, "_own_address", lambda: "127.0.0.1")
    async with MockOllama() as mock:
        assert (await looked_at(client, mock.url))["exposure"] is Status.WARNING


@pytest.mark.parametrize(("token", "credential"), [("", None), (TOKEN, CREDENTIAL)])
async def test_a_public_address_without_credential_or_without_tls_is_found(client, monkeypatch, token, credential):
    # The mock is on loopback, but its name leads to a public address: a test must not send anything to one.
    async def resolved(host: str, port: int) -> list[ipaddress.IPv4Address]:
        return [ipaddress.IPv4Address("9.9.9.9")]

    monkeypatch.setattr(backends, "_resolved", resolved)
    async with MockOllama(settings=Settings(token=token)) as mock:
        found = await looked_at(client, mock.url, credential)

    assert found == {"models": Status.OK, "exposure": Status.FAILED, "cloud": Status.OK}


async def test_a_name_that_nobody_knows_is_skipped_there_and_failed_once(client):
    found = await looked_at(client, "http://nobody.invalid:11434")

    assert (found["models"], found["exposure"]) == (Status.FAILED, Status.SKIPPED)
