"""One RPC as a command: its request's fields are the options, its answer is what is shown."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
from click.core import ParameterSource
from google.protobuf.message import Message

from controlplane.cli import helptext, render, settings
from controlplane.cli.descriptors import RPC, Catalogue, first_sentence
from controlplane.cli.options import Leaf, fill, leaves, parameters
from controlplane.cli.settings import CommonOption, Settings

# What the verb of an RPC does to something that somebody may be using; asked about on a terminal.
_DESTRUCTIVE = frozenset({"delete", "remove", "revoke", "suspend"})
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
        own = [parameter for leaf in self.leaves for parameter in parameters(leaf)]
        options = [parameter for parameter in own if isinstance(parameter, click.Option)]
        taken = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        common = settings.common_options()
        if self.is_destructive:
            common.append(CommonOption(["yes", "--yes"], is_flag=True, default=None, help="Go on without asking."))
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
        """Whether a terminal is asked before the call."""
        return self.rpc.name.partition("-")[0] in _DESTRUCTIVE

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
        chosen = settings.read(flags, session.environ)
        given = dict(self._given(ctx))
        request = self._catalogue.message(self.rpc.request)
        fill(request, given)
        named = {leaf.field.name for leaf in given}
        connection = settings.connection(chosen)
        if self.is_destructive and not confirmed and "validate_only" not in named and sys.stdin.isatty():
            click.confirm(f"{self.rpc.name} {_told(given)}: go on?", err=True, abort=True)
        self._send(request, chosen, connection, one_page=bool(named & _PAGING), stream_timeout_s=flags.get("timeout_s"))

    def _send(
        self,
        request: Message,
        chosen: Settings,
        connection: settings.Connection,
        *,
        one_page: bool,
        stream_timeout_s: float | None,
    ) -> None:
        from controlplane.cli import call  # noqa: PLC0415 - only calls wait for it

        with call.Client(connection, self._catalogue) as client:
            if self.rpc.server_streaming:
                for message in client.stream(self.rpc, request, stream_timeout_s):
                    render.show_streamed(message, chosen.output, self._catalogue)
                return
            whole_list = call.is_paged(self.rpc) and not one_page
            answer = (client.call_all_pages if whole_list else client.call)(self.rpc, request)
        render.show(answer, chosen.output, self._catalogue)

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


def _told(given: Mapping[Leaf, Any]) -> str:
    return " ".join(f"{leaf.flag}={value}" for leaf, value in given.items())
