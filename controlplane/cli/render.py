"""Answers on stdout: tables for people, one JSON or YAML document for programs, streams as they come."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from controlplane.cli.descriptors import Catalogue
from controlplane.cli.plain import document
from controlplane.cli.settings import Output
from controlplane.cli.views import Facts, Listing, Note, line, views

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough that nothing wraps where no terminal tells its width.
_UNBOUNDED_WIDTH = 10_000

# States as people see them at a glance; words that no answer uses cost nothing.
_STYLES = {
    **dict.fromkeys(("active", "applied", "completed", "yes", "OK", "ok"), "green"),
    **dict.fromkeys(("suspended", "pending", "client-closed", "cut", "started", "warning"), "yellow"),
    **dict.fromkeys(("revoked", "crashed", "refused", "upstream-failed", "INTERNAL", "UNAVAILABLE", "failed"), "red"),
    **dict.fromkeys(("expired", "no", "skipped"), "dim"),
}


def note(text: str) -> None:
    """A sentence on stderr, in colour on a terminal unless ``NO_COLOR`` says otherwise (https://no-color.org)."""
    click.secho(text, err=True, fg="yellow", color=False if os.environ.get("NO_COLOR") else None)


def show(message: Message, output: Output, catalogue: Catalogue, *, is_dry_run: bool = False) -> None:
    """One answer as a whole; of a dry run people see what the proto marks for it, where it marks something."""
    if output != "table":
        show_document(document(message), output)
        return
    lines = [str(getattr(message, field.name)) for field in _of_dry_run(message, catalogue)] if is_dry_run else []
    if any(lines):
        click.echo("\n".join(lines))
    else:
        _show_table(message, catalogue)


def show_document(data: dict[str, Any], output: Output) -> None:
    """A document as a whole, as JSON or YAML."""
    if output == "yaml":
        click.echo(_yaml(data), nl=False)
    else:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_listing(listing: Listing) -> None:
    """A table that is no answer of a server, as those are shown to people."""
    _print_listing(_console(), listing, titled=False)


def show_again(message: Message, output: Output, catalogue: Catalogue) -> None:
    """One of many answers to the same question: as ``show_streamed``, but always as a table for people."""
    if output != "table":
        show_streamed(message, output, catalogue)
        return
    click.clear()
    _show_table(message, catalogue)
    if not sys.stdout.isatty():
        click.echo()
    sys.stdout.flush()


def show_streamed(message: Message, output: Output, catalogue: Catalogue) -> None:
    """One of many answers: a JSON line, a YAML document, or for people a line.

    An answer that is a table takes the place of the one before, where there is a terminal.
    """
    if output == "json":
        click.echo(json.dumps(document(message), ensure_ascii=False))
    elif output == "yaml":
        click.echo(f"---\n{_yaml(document(message))}", nl=False)
    elif _is_table(message):
        click.clear()
        _show_table(message, catalogue)
        click.echo()
    else:
        click.echo(line(message))
    sys.stdout.flush()


def _of_dry_run(message: Message, catalogue: Catalogue) -> list[FieldDescriptor]:
    fields: Any = message.DESCRIPTOR.fields
    return [field for field in fields if catalogue.annotation(field, "of_dry_run")]


def _is_table(message: Message) -> bool:
    return any(field.is_repeated and field.message_type is not None for field in message.DESCRIPTOR.fields)


def _yaml(data: dict[str, Any]) -> str:
    import yaml  # noqa: PLC0415 - only those who ask for it wait for it

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_UNBOUNDED_WIDTH)


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - programs do not wait for it

    return Console(
        highlight=False,
        width=None if sys.stdout.isatty() else _UNBOUNDED_WIDTH,
        # Neither colours nor bold: https://no-color.org
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


def _show_table(message: Message, catalogue: Catalogue) -> None:
    console = _console()
    shown = list(views(message, catalogue))
    for number, view in enumerate(shown):
        if number and not isinstance(view, Note):
            console.print()
        match view:
            case Facts():
                _print_facts(console, view)
            case Listing():
                _print_listing(console, view, titled=len(shown) > 1)
            case Note():
                note(view.text)
    if not shown:
        console.print("done")


def _print_facts(console: "Console", facts: Facts) -> None:
    from rich.text import Text  # noqa: PLC0415 - see above

    width = max(len(name) for name, _ in facts.rows)
    for name, value in facts.rows:
        # Not a table: a long value such as a key must stay one line, so that it can be copied whole.
        styled = (value, _STYLES.get(value.partition(" (")[0], ""))
        console.print(Text.assemble((name.ljust(width), "bold cyan"), "  ", styled), soft_wrap=True)


def _print_listing(console: "Console", listing: Listing, *, titled: bool) -> None:
    from rich import box  # noqa: PLC0415 - see above
    from rich.measure import Measurement  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if titled:
        console.print(Text(listing.title, style="bold"), soft_wrap=True)
    if not listing.rows:
        console.print(f"no {listing.title}" if not titled else "  none")
        return
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=style, show_edge=False, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    for index, (name, numeric) in enumerate(zip(listing.columns, listing.numeric, strict=True)):
        # The first column is what the row is asked for by: it must be possible to copy it whole.
        table.add_column(name.upper(), justify="right" if numeric else "left", overflow="fold", no_wrap=index == 0)
    for row in listing.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    if Measurement.get(console, console.options.update_width(_UNBOUNDED_WIDTH), table).maximum <= console.width:
        console.print(table)
        return
    # Too wide to be read as a table: one thing below the other.
    for number, row in enumerate(listing.rows):
        if number:
            console.print()
        _print_facts(console, Facts(rows=tuple(pair for pair in zip(listing.columns, row, strict=True) if pair[1])))
