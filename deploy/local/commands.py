"""The commands `up` (in front of real Ollama servers) and `demo` (in front of a mock one).

Both stay in the foreground until SIGINT, SIGTERM or SIGHUP, then stop everything in order; a second signal stops at
once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deploy.local import foreground
from deploy.local.options import Options, default_state, demo_state
from deploy.local.redis import DEFAULT_MAXMEMORY

POLICIES = (
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-ttl",
)
DEMO_REFRESH_S = 5
UP_REFRESH_S = 60


class Pair(click.ParamType[tuple[str, str]]):
    """NAME=VALUE as a pair."""

    name = "name=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first equals sign."""
        name, sign, rest = str(value).partition("=")
        if not name or not sign:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, rest


STACK_OPTIONS = (
    click.option("--replicas", type=click.IntRange(1, 16), default=1, show_default=True, help="Data-plane replicas."),
    click.option(
        "--control-replicas", type=click.IntRange(1, 8), default=1, show_default=True, help="Control-plane replicas."
    ),
    click.option(
        "--port",
        type=click.IntRange(1, 65535),
        help="Port of the first data plane; others follow. Default: 8080 if free, else a free one.",
    ),
    click.option(
        "--admin-port",
        type=click.IntRange(1, 65535),
        help="Port of the first control plane's admin API; others follow. Default: a free one, the same at each start.",
    ),
    click.option("--redis-maxmemory", default=DEFAULT_MAXMEMORY, show_default=True, help="Memory for Redis's data."),
    click.option(
        "--redis-policy",
        type=click.Choice(POLICIES),
        default="noeviction",
        show_default=True,
        help="What Redis does when it is full; the gateway works with noeviction only.",
    ),
    click.option(
        "--set",
        "settings",
        type=Pair(),
        multiple=True,
        help="Set a variable of the planes' environment; may be repeated.",
    ),
    click.option(
        "--ready-timeout",
        "ready_timeout_s",
        type=float,
        default=60.0,
        show_default=True,
        help="Seconds for each plane to become ready.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one line of JSON on stdout when everything is ready."),
)


def stack_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that `up` and `demo` share."""
    for option in reversed(STACK_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Folder that keeps everything.")
@click.option(
    "--backend",
    "backends",
    type=Pair(),
    multiple=True,
    metavar="NAME=URL",
    help="An Ollama server; repeat in order of priority. Default: OLLAMA_BASE_URL, else http://127.0.0.1:11434.",
)
@stack_options
def up(state: Path | None, backends: tuple[tuple[str, str], ...], *, as_json: bool, **shared: Any) -> None:
    """Run the whole gateway on this machine in front of real Ollama servers; its state is kept."""
    options = _options(state or default_state("up"), refresh_s=UP_REFRESH_S, backends=backends, **shared)
    sys.exit(foreground.run(options, present=foreground.present_json if as_json else foreground.present_up))


@click.command()
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Folder that keeps everything.")
@click.option("--down", is_flag=True, help="Stop the demo and remove all its state.")
@stack_options
def demo(state: Path | None, *, down: bool, as_json: bool, **shared: Any) -> None:
    """Run the whole gateway on this machine in front of a mock Ollama, with a tenant and a key to try it."""
    options = _options(state or demo_state(), refresh_s=DEMO_REFRESH_S, mock=True, **shared)
    if down:
        sys.exit(foreground.bring_down(options.state))
    sys.exit(foreground.run(options, present=foreground.present_demo_json if as_json else foreground.present_demo))


def _options(state: Path, *, settings: tuple[tuple[str, str], ...], **others: Any) -> Options:
    return Options(state=state, settings=dict(settings), **others)
