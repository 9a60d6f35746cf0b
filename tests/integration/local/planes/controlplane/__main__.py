"""Stands in for the control plane: answers health, makes tenants and keys up, and refuses to start when told to."""

import json
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, tenant_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    def Check(self, request, context):  # noqa: N802 - the signature is the RPC's
        if ("authorization", f"Bearer {os.environ['GATEWAY_ADMIN_TOKEN']}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class Tenants(tenant_pb2_grpc.TenantServiceServicer):
    def CreateTenant(self, request, context):  # noqa: N802 - the name is the RPC's
        context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{request.name} exists")


class Keys(key_pb2_grpc.KeyServiceServicer):
    def CreateKey(self, request, context):  # noqa: N802 - the signature is the RPC's
        return key_pb2.CreateKeyResponse(api_key=f"nz_{request.tenant}_{os.getpid()}")


def main() -> None:
    if os.environ.get("FAKE_FAULT") == "configuration":
        sys.stdout.write(json.dumps({"event": "configuration_refused", "fault": "FAKE_FAULT is set"}) + "\n")
        sys.exit(64)
    if os.environ.get("FAKE_FAULT") == "crash":
        sys.exit("crashed on purpose")
    stopped = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    tenant_pb2_grpc.add_TenantServiceServicer_to_server(Tenants(), server)  # type: ignore[abstract] # the demo calls no others
    key_pb2_grpc.add_KeyServiceServicer_to_server(Keys(), server)  # type: ignore[abstract] # likewise
    server.add_insecure_port(os.environ["GATEWAY_ADMIN_BIND"])
    server.start()
    sys.stdout.write(json.dumps({"event": "started"}) + "\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.wait(0.05):
        continue
    server.stop(None)


if __name__ == "__main__":
    main()
