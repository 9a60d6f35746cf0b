"""Which backends there are: those that requests really go to, or else those of the environment."""

from __future__ import annotations

from redis.asyncio import Redis

from controlplane.doctor.deployment import Deployment
from controlplane.doctor.findings import Finding, failed, skipped
from controlplane.errors import ControlPlaneError
from controlplane.ollama.client import Target
from controlplane.publish.redis_state import RedisState
from shared.backends import credential_header
from shared.records import BackendRecord, ConfigRecord
from shared.sealing import SealError


async def known(deployment: Deployment, redis: Redis | None, *, timeout_s: float) -> tuple[list[Target], list[Finding]]:
    """The backends to ask, and what is to be said of those that cannot be asked. Raises nothing."""
    if redis is not None:
        # The retention is for writing, which does not happen here.
        state = RedisState(redis, timeout_s=timeout_s, prompt_log_days=0)
        try:
            config = await state.read_config()
        except ControlPlaneError as fault:
            return [], [skipped("backends", f"those in use cannot be read ({fault})")]
        if config is not None:
            return _published(deployment, config)
    return _static(deployment)


def _published(deployment: Deployment, config: ConfigRecord) -> tuple[list[Target], list[Finding]]:
    targets, findings = [], []
    for record in config.backends:
        try:
            targets.append(_target(deployment, record))
        except SealError as fault:
            advice = "use the sealing key of the control planes, or give the backend its token again"
            findings.append(failed(f"backends.{record.name}.models", str(fault), advice))
    if not config.backends:
        findings.append(skipped("backends", "there is none", "neuronetz-gateway add-backend"))
    return targets, findings


def _target(deployment: Deployment, record: BackendRecord) -> Target:
    """The target of a published backend. Raises ``SealError`` when its token cannot be opened here."""
    sealer = deployment.sealer
    if sealer is not None:
        return Target.of(record, sealer)
    if record.sealed_token is not None:
        raise SealError(f"the credential of backend {record.name!r} is sealed, and there is no sealing key here")
    return Target(name=record.name, url=record.url)


def _static(deployment: Deployment) -> tuple[list[Target], list[Finding]]:
    targets = [
        Target(
            name=backend.name,
            url=backend.url,
            credential=credential_header(header=backend.header, scheme=backend.scheme, token=backend.token),
        )
        for backend in deployment.static_backends
    ]
    return targets, [] if targets else [skipped("backends", "none is known here", "neuronetz-gateway add-backend")]
