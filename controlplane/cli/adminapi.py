"""The admin API as the doctor sees it: an operator's call that says which workers of the data plane are ready."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from controlplane.cli import settings
from controlplane.cli.call import Client
from controlplane.cli.descriptors import Catalogue
from controlplane.cli.errors import CallError
from controlplane.doctor import Check, Finding, Status
from shared.config import ConfigurationError

_NAME = "admin-api"
_COMMAND = "list-replicas"


def checks(environ: Mapping[str, str], *, timeout_s: float) -> list[Check]:
    """The check, where the environment (or the file for the command line) says where the admin API is.

    Raises ``ConfigurationError`` when what it says of that breaks a rule.
    """
    known = settings.read({"timeout_s": timeout_s}, environ)
    return [] if known.address is None else [Check(name=_NAME, look=partial(_look, known))]


async def _look(known: settings.Settings) -> list[Finding]:
    try:
        connection = settings.connection(known)
    except ConfigurationError as fault:
        advice = "correct the settings of the command line (docs/CLI.md)"
        return [Finding(name=_NAME, status=Status.FAILED, seen="; ".join(fault.faults), advice=advice)]
    try:
        # The call ends by its own deadline, and the thread with it.
        workers = await asyncio.to_thread(_workers, connection)
    except CallError as fault:
        advice = "see that a control plane listens there, and address, TLS files and token of the command line"
        return [Finding(name=_NAME, status=Status.FAILED, seen=f"{fault.code}: {fault.message}", advice=advice)]
    ready = sum(worker.ready for worker in workers)
    seen = f"answers this operator; {ready} of {len(workers)} data-plane workers are ready"
    if workers and ready == len(workers):
        return [Finding(name=_NAME, status=Status.OK, seen=seen)]
    advice = f"see neuronetz-gateway {_COMMAND}, and GET /readyz of those that are not"
    return [Finding(name=_NAME, status=Status.FAILED, seen=seen, advice=advice)]


def _workers(connection: settings.Connection) -> list[Any]:
    catalogue = Catalogue.packaged()
    rpc = catalogue.find(_COMMAND)
    if rpc is None:
        raise CallError("UNIMPLEMENTED", f"this release has no {_COMMAND}")
    with Client(connection, catalogue) as client:
        answer: Any = client.call_all_pages(rpc, catalogue.message(rpc.request))
    return list(answer.replicas)
