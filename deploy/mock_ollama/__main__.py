"""Runs one mock Ollama until SIGTERM or SIGINT: `python -m deploy.mock_ollama --port 0`."""

import asyncio
import json
import os
import signal

import click
import uvloop

from deploy.mock_ollama.mock import MockOllama
from deploy.mock_ollama.settings import Settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=11434, show_default=True, help="Port of the Ollama API; 0 for any free one.")
@click.option("--control-port", default=0, show_default=True, help="Port of the control endpoint; 0 for any free one.")
@click.option("--name", default="mock", show_default=True, help="Name shown in /stats.")
@click.option("--models", default="", help="Comma-separated model names instead of the default catalogue.")
@click.option("--tokens", default=24, show_default=True, help="Tokens of the default answer.")
@click.option("--load-delay-ms", default=0.0, show_default=True, help="Time that loading a model takes.")
@click.option("--record-delay-ms", default=0.0, show_default=True, help="Time before each record of a stream.")
@click.option("--token", default="", help="Bearer token to ask for, as a proxy in front of Ollama would.")
@click.option("--ready-fd", type=int, default=None, help="File descriptor to write the ready line to as well.")
@click.option("--print-ready/--no-print-ready", default=True, show_default=True, help="Print the ready line on stdout.")
def main(
    host: str,
    port: int,
    control_port: int,
    name: str,
    models: str,
    tokens: int,
    load_delay_ms: float,
    record_delay_ms: float,
    token: str,
    ready_fd: int | None,
    print_ready: bool,  # noqa: FBT001 - click passes by name
) -> None:
    """Run a mock Ollama; prints one JSON line with `url` and `control_url` when it listens."""
    settings = Settings().changed(
        tokens=tokens, load_delay_ms=load_delay_ms, record_delay_ms=record_delay_ms, token=token
    )
    names = [part.strip() for part in models.split(",") if part.strip()]
    mock = MockOllama(
        name=name, host=host, port=port, control_port=control_port, models=names or None, settings=settings
    )
    uvloop.run(_serve(mock, ready_fd=ready_fd, print_ready=print_ready))


async def _serve(mock: MockOllama, *, ready_fd: int | None, print_ready: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with mock:
        line = json.dumps({"url": mock.url, "control_url": mock.control_url})
        if print_ready:
            print(line, flush=True)
        if ready_fd is not None:
            os.write(ready_fd, f"{line}\n".encode())
            os.close(ready_fd)
        await stopping.wait()


if __name__ == "__main__":
    main()
