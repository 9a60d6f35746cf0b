"""Stands in for the control plane: answers health with the bearer token, and refuses to start when told to."""

import json
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    def Check(self, request, context):  # noqa: ARG002, N802 - the signature is the RPC's
        if ("authorization", f"Bearer {os.environ['GATEWAY_ADMIN_TOKEN']}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def main() -> None:
    if os.environ.get("FAKE_FAULT") == "configuration":
        sys.stdout.write(json.dumps({"event": "configuration_refused", "fault": "FAKE_FAULT is set"}) + "\n")
        sys.exit(64)
    if os.environ.get("FAKE_FAULT") == "crash":
        sys.exit("crashed on purpose")
    stopped = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    server.add_insecure_port(os.environ["GATEWAY_ADMIN_BIND"])
    server.start()
    sys.stdout.write(json.dumps({"event": "started", "environment": dict(os.environ)}) + "\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.wait(0.05):
        continue
    server.stop(None)


if __name__ == "__main__":
    main()
