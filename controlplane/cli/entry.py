"""The process: arguments in, exit code out, and exactly one line on stderr about what went wrong."""

import json
import os
import sys
from collections.abc import Mapping, Sequence

import click

from controlplane.cli.commands import PROGRAM, Gateway, LocalCommands
from controlplane.cli.descriptors import Catalogue
from controlplane.cli.errors import CLIError, Exit
from controlplane.cli.local import InstalledCommands
from controlplane.cli.rpccommand import Session
from shared.config import ConfigurationError


def main() -> int:
    """The console script; returns the exit code."""
    return run(sys.argv[1:], os.environ, Catalogue.packaged(), InstalledCommands())


def run(arguments: Sequence[str], environ: Mapping[str, str], catalogue: Catalogue, local: LocalCommands) -> int:
    """One command with everything that it may know; every failure that has a name becomes its exit code."""
    gateway = Gateway(catalogue, local)
    report = _Report(as_json=_wants_json(arguments, environ), is_plain=bool(environ.get("NO_COLOR")))
    try:
        result = gateway.main(list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=Session(environ))
    except click.exceptions.NoArgsIsHelpError as page:
        page.show()
        return Exit.USAGE
    except click.ClickException as error:
        return report("USAGE", error.format_message().rstrip(".") + _hint(error), Exit.USAGE)
    except ConfigurationError as error:
        return report("CONFIGURATION", "; ".join(error.faults), Exit.CONFIGURATION)
    except CLIError as error:
        return report(error.code, error.message, error.exit)
    except click.Abort as error:
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        return report("ABORTED", "nothing more was done", Exit.INTERRUPTED if interrupted else Exit.OTHER)
    return result if isinstance(result, int) else Exit.OK


class _Report:
    def __init__(self, *, as_json: bool, is_plain: bool) -> None:
        self._as_json = as_json
        self._is_plain = is_plain

    def __call__(self, code: str, message: str, exit_code: Exit) -> int:
        text = " ".join(message.split())
        if self._as_json:
            error = {"code": code, "message": text, "exit_code": int(exit_code)}
            click.echo(json.dumps({"error": error}, ensure_ascii=False), err=True)
        else:
            printable = "".join(character for character in text if character.isprintable())
            colour = False if self._is_plain else None
            click.echo(f"{click.style('error', fg='red', bold=True)}: {code}: {printable}", err=True, color=colour)
        return exit_code


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see {context.command_path} --help)" if context is not None else ""


def _wants_json(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """How an error is to be shown, also one in the arguments themselves: the last --output wins over GATEWAY_OUTPUT."""
    wanted = environ.get("GATEWAY_OUTPUT", "")
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in ("--output", "-o"):
            wanted = following
        elif word.startswith("--output="):
            wanted = word.partition("=")[2]
        elif word.startswith("-o") and not word.startswith("--"):
            wanted = word[2:]
    return wanted.lower() == "json"
