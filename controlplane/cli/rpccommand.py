"""One RPC as a command: its request's fields are the options, its answer is what is shown."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from google.protobuf.message import Message

from controlplane.cli import backendfile, helptext, render, settings
from controlplane.cli.descriptors import RPC, Catalogue, first_sentence
from controlplane.cli.envfile import EnvFileError
from controlplane.cli.errors import CLIError
from controlplane.cli.options import Leaf, fill, leaves, parameters
from controlplane.cli.settings import CommonOption, Settings

DEFAULT_INTERVAL_S = 2.0
# Whoever names one of these wants one page; otherwise lists are complete.
_PAGING = frozenset({"page_size", "page_token"})


@dataclass(frozen=True, slots=True)
class Session:
    """What one run of the command line knows: its environment, and the common options before the command."""

    environ: Mapping[str, str]
    flags: Mapping[str, Any] = field(default_factory=dict)


class RPCCommand(click.Command):
    """A command that sends one request; raises ``CLIError``, ``click.UsageError`` and ``ConfigurationError``."""

    def __init__(self, rpc: RPC, catalogue: Catalogue) -> None:
        self.rpc = rpc
        self.leaves = leaves(rpc.request, catalogue)
        self._catalogue = catalogue
        self._file_variant = backendfile.variant(rpc.method)
        own = [parameter for leaf in self.leaves for parameter in parameters(leaf)]
        options = [parameter for parameter in own if isinstance(parameter, click.Option)]
        taken = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        common = settings.common_options()
        common += self._further_options()
        hidden = {name for option in common for name in option.opts} & taken
        flags = {leaf.field.name: leaf.flag for leaf in self.leaves}
        super().__init__(
            name=rpc.name,
            help=helptext.paragraphs(helptext.option_names(rpc.comment, flags)),
            short_help=first_sentence(rpc.comment),
            epilog=helptext.shadowed(hidden),
            params=[*self._arguments(own), *options, *(option for option in common if not hidden & set(option.opts))],
            callback=self._run,
        )

    @property
    def is_destructive(self) -> bool:
        """Whether a terminal is asked before the call, and everybody else must say ``--yes``."""
        return self.rpc.is_destructive

    @property
    def is_reading(self) -> bool:
        """Whether asking again changes nothing: what changes something can be checked only."""
        return "validate_only" not in self.rpc.request.fields_by_name

    def _further_options(self) -> Iterator[CommonOption]:
        if self.is_destructive:
            yield CommonOption(["yes", "--yes"], is_flag=True, default=None, help="Go on without asking.")
        if self.is_reading:
            help_text = "Ask again and again until interrupted; on a terminal a table stays in its place."
            if self.rpc.server_streaming:
                help_text = "Said for clarity: this command goes on until interrupted anyway."
            yield CommonOption(["watch", "--watch"], is_flag=True, default=None, help=help_text)
        if self.is_reading and not self.rpc.server_streaming:
            yield CommonOption(
                ["every_s", "--every"],
                type=click.FloatRange(min=0.1, max=3600),
                metavar="SECONDS",
                help=f"Time between two questions of --watch (default {DEFAULT_INTERVAL_S:g}).",
            )
        if self._file_variant is not None:
            yield self._file_variant.option()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The request's options first, then those that every command has."""
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], "Common options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                own = parameter.name.startswith("field_")
                rows["Options" if own else "Common options"].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _arguments(self, own: list[click.Parameter]) -> list[click.Parameter]:
        positions = {leaf.argument: leaf.positional for leaf in self.leaves}
        found = [parameter for parameter in own if isinstance(parameter, click.Argument)]
        return sorted(found, key=lambda argument: positions[str(argument.name)])

    def _run(self, **_: Any) -> None:
        ctx = click.get_current_context()
        session: Session = ctx.obj
        flags = {**session.flags, **common_flags(ctx)}
        confirmed = flags.pop("yes", False)
        environment_file = flags.pop("environment_file", None)
        interval_s = flags.pop("every_s", DEFAULT_INTERVAL_S) if flags.pop("watch", False) else None
        flags.pop("every_s", None)
        chosen = settings.read(flags, session.environ)
        given = dict(self._given(ctx))
        request = self._catalogue.message(self.rpc.request)
        fill(request, given)
        named = {leaf.field.name for leaf in given}
        connection = None if environment_file is not None else settings.connection(chosen)
        if self.is_destructive and not confirmed and "validate_only" not in named:
            self._confirm(f"{self.rpc.name} {_told(given)}", ctx)
        if connection is None:
            self._edit(request, environment_file, chosen)
            return
        self._send(
            request,
            chosen,
            connection,
            one_page=bool(named & _PAGING),
            is_dry_run="validate_only" in named,
            interval_s=interval_s,
            stream_timeout_s=flags.get("timeout_s"),
        )

    def _confirm(self, deed: str, ctx: click.Context) -> None:
        if not sys.stdin.isatty():
            raise click.UsageError("there is nobody to ask here: say --yes", ctx)
        click.confirm(f"{deed}: go on?", err=True, abort=True)

    def _edit(self, request: Message, path: Path, chosen: Settings) -> None:
        if self._file_variant is None:
            return
        try:
            self._file_variant.run(request, path, chosen.output)
        except EnvFileError as fault:
            raise CLIError(str(fault)) from fault

    def _send(
        self,
        request: Message,
        chosen: Settings,
        connection: settings.Connection,
        *,
        one_page: bool,
        is_dry_run: bool,
        interval_s: float | None,
        stream_timeout_s: float | None,
    ) -> None:
        from controlplane.cli import call  # noqa: PLC0415 - only calls wait for it

        with call.Client(connection, self._catalogue) as client:
            if self.rpc.server_streaming:
                for message in client.stream(self.rpc, request, stream_timeout_s):
                    render.show_streamed(message, chosen.output, self._catalogue)
                return
            whole_list = call.is_paged(self.rpc) and not one_page
            ask = client.call_all_pages if whole_list else client.call
            while interval_s is not None:
                # Paging writes the page into the request it was given.
                render.show_again(ask(self.rpc, _copy(request)), chosen.output, self._catalogue)
                time.sleep(interval_s)
            answer = ask(self.rpc, request)
        render.show(answer, chosen.output, self._catalogue, is_dry_run=is_dry_run)

    def _given(self, ctx: click.Context) -> Iterator[tuple[Leaf, Any]]:
        """What was typed, as opposed to what click fills in: presence is the operator's, not a default's."""
        for leaf in self.leaves:
            typed = [
                ctx.params[name]
                for name in (leaf.parameter, leaf.argument)
                if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            ]
            if len(typed) > 1:
                raise click.UsageError(f"--{leaf.flag} is given twice, by name and by position", ctx)
            if typed:
                yield leaf, typed[0]


def common_flags(ctx: click.Context) -> dict[str, Any]:
    """The common options that stand where this context's command was called."""
    names = [option.name for option in ctx.command.params if isinstance(option, CommonOption)]
    return {name: ctx.params[name] for name in names if ctx.params[name] is not None}


def _copy(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _told(given: Mapping[Leaf, Any]) -> str:
    return " ".join(f"{leaf.flag}={value}" for leaf, value in given.items())
