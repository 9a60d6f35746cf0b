"""Stands in for the data plane: a main process that ends when its worker ends, and the worker, which serves."""

import ctypes
import http.server
import json
import os
import signal
import subprocess
import sys


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(
            {"pid": os.getpid(), "environment": dict(os.environ), "data": [{"id": "embedder"}, {"id": "chatter"}]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


def work() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    port = int(os.environ["GATEWAY_BIND_PORT"])
    http.server.HTTPServer((os.environ["GATEWAY_BIND_HOST"], port), Ready).serve_forever()


def main() -> int:
    sys.stdout.write(json.dumps({"event": "started"}) + "\n")
    sys.stdout.flush()
    worker = subprocess.Popen([sys.executable, __file__, "work"])
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    return 0 if worker.wait() in (0, -signal.SIGTERM) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        sys.exit(main())
