"""The parts of a worker that decide whether a key may do something now, over a real link."""

from __future__ import annotations

import uuid

import msgspec

from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.stages.admit import Admit
from dataplane.state.control import ControlPlanes
from dataplane.state.keys import RedisKeys
from dataplane.state.models import CurrentModels
from dataplane.state.verifier import ControlPlaneVerifier
from dataplane.values import Lease, Limits, Principal, RequestId
from shared.clock import SystemClock
from shared.modelname import canonical
from shared.records import BackendModelsRecord, BackendRecord, ConfigRecord, DiscoveredRecord, ModelRecord
from shared.redaction import Secret
from shared.sealing import Sealer
from tests.fakes.published_state import PEPPER
from tests.unit.stages.principals import ARRIVAL, INFERENCE


class Worker:
    """The adapters that admission needs."""

    def __init__(self, link: Link) -> None:
        clock = SystemClock()
        calls = Calls(backlog_max_events=16_000)
        self.settlements = Settlements(link=link, calls=calls, capacity=10)
        self.models = CurrentModels(sealer=Sealer(b"k" * 32), clock=clock)
        self.keys = RedisKeys(
            link=link,
            verifier=ControlPlaneVerifier(ControlPlanes(addresses=(), token=None)),
            refused=RefusedVersions(),
            pepper=Secret(PEPPER),
            defaults=Limits(rpm=60, tpm=100_000, concurrent=8),
            ttl_s=60,
            clock=clock,
        )
        leases = RedisLeases(link=link, calls=calls, buffer=self.settlements, refused=RefusedVersions(), clock=clock)
        self.admit = Admit(leases=leases, keys=self.keys, models=self.models)
        model = ModelRecord(name="llama3", canonical=canonical("llama3"))
        self.models.replace(
            ConfigRecord(revision=1, backends=(BackendRecord(name="one", url="http://one"),)),
            DiscoveredRecord(
                revision=1,
                expires_at_ms=0,
                backends=(BackendModelsRecord(backend="one", seen_at_ms=1, models=(model,)),),
            ),
            valid_for_s=60,
        )

    async def request(self, api_key: str) -> tuple[Principal, Lease]:
        principal = await self.keys.principal(api_key)
        arrival = msgspec.structs.replace(ARRIVAL, request_id=RequestId(uuid.uuid4().hex))
        principal, lease, _ = await self.admit(principal, arrival, INFERENCE)
        return principal, lease
