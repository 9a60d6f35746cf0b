"""The control-plane process: ``python -m controlplane``."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys

from controlplane import app, config
from controlplane.config import Settings
from controlplane.rpc.server import BindError
from shared import logs
from shared.config import EXIT_CONFIGURATION, ConfigurationError

EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
EXIT_SOFTWARE = 70  # EX_SOFTWARE
# Beyond the drain time.
END_WITHIN_S = 30.0


def main() -> int:
    """Runs until SIGTERM or SIGINT; gives the exit status."""
    try:
        settings = config.load(os.environ)
    except ConfigurationError as refused:
        logs.configure(level="info", style="json", plane="controlplane")
        for fault in refused.faults:
            logs.get("controlplane").error("configuration_refused", fault=fault)
        return EXIT_CONFIGURATION
    logs.configure(level=settings.log_level, style=settings.log_format, plane="controlplane")
    try:
        asyncio.run(_serve(settings))
    except BindError as fault:
        logs.get("controlplane").error("port_unavailable", fault=str(fault))
        return EXIT_UNAVAILABLE
    except ExceptionGroup as faults:
        # A task ended in a way that nobody foresaw. Whoever started the process starts it anew.
        logs.get("controlplane").error("control_plane_failed", exc_info=faults)
        return EXIT_SOFTWARE
    return 0


async def _serve(settings: Settings) -> None:
    plane = app.create(settings)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # The last resort: tell where every thread stands and end all the same.
        faulthandler.dump_traceback_later(settings.drain_timeout_s + END_WITHIN_S, exit=True)
        plane.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await plane.run()


if __name__ == "__main__":
    sys.exit(main())
