"""Runs the runbooks: what `docs/OPERATIONS.md` tells an operator to type is typed, against a stack of its own.

    python -m deploy.rehearse                            # all of them; says where the page and the gateway differ
    python -m deploy.rehearse --only redis-away --write  # puts what was really to be seen into the page

A block of the page belongs to a rehearsal when the line above it says ``<!-- rehearsed: NAME -->``; settings of the
planes may follow the name (``<!-- rehearsed: NAME SETTING=VALUE -->``, on the first block of that name). Blocks of one
name are typed one after the other into one shell, beside a gateway with two replicas of each plane, two mock Ollamas,
Postgres and Redis, which is new for each name. Blocks named ``prelude`` are typed first in every rehearsal. A command
begins with ``$``, goes on in lines that begin with ``>``, and shows what follows.

Compared are words, statuses and small numbers; moments, identities, shards, durations, revisions, numbers of four
digits or more, the length of ruled lines, and whatever is counted beside an address may be others. Needs bash, curl,
jq, openssl, bc and redis-cli on the path; psql and pg_dump come with the embedded Postgres.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from deploy.rehearsal.errors import RehearsalError
from deploy.rehearsal.shell import Shell
from deploy.rehearsal.stage import stage

PAGE = Path(__file__).parents[1] / "docs" / "OPERATIONS.md"
PRELUDE = "prelude"
_BLOCK = re.compile(r"^<!-- rehearsed: (\S+)((?: \w+=\S+)*) -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs from one run to the next: moments, identities, shards, durations, large or broken numbers, ruled lines.
_VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00)?|\bs\d\d\b|[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{16,}\b|nz_\w+\**"
    r"|\d+(?:\.\d+)? ?m?s\b|\d+%|^revision +\d+|\d+\.(?!0\b)\d+|\d{4,}|-{5,}"
)
# What is left of an address on loopback; a row with one is about a process or a server: revisions, latencies.
_ADDRESS = "127.0.#:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command and what it showed."""

    command: str
    shown: str

    @property
    def printed(self) -> str:
        """As it stands in the page."""
        first, *further = self.command.split("\n")
        lines = [f"$ {first}", *(f"> {line}" for line in further), *([self.shown] if self.shown else [])]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One marked block of the page, with the place of its steps in the text."""

    name: str
    settings: tuple[str, ...]
    steps: tuple[Step, ...]
    start: int
    end: int

    @property
    def printed(self) -> str:
        """Its steps as they stand in the page."""
        return "".join(step.printed for step in self.steps)


def blocks_of(text: str) -> list[Block]:
    """The marked blocks of a page, in its order. Raises ValueError for one that does not begin with a command."""
    return [
        Block(
            name=match[1],
            settings=tuple(match[2].split()),
            steps=_steps(match[3]),
            start=match.start(3),
            end=match.end(3),
        )
        for match in _BLOCK.finditer(text)
    ]


def _steps(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    in_command = False
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(command=line[2:], shown=""))
            in_command = True
            continue
        if not steps:
            raise ValueError(f"a rehearsed block begins with a command, not with {line!r}")
        last = steps.pop()
        if in_command and line.startswith("> "):
            steps.append(replace(last, command=f"{last.command}\n{line[2:]}"))
            continue
        in_command = False
        steps.append(replace(last, shown=f"{last.shown}\n{line}" if last.shown else line))
    return tuple(steps)


def written(text: str, blocks: Sequence[Block]) -> str:
    """The page with the blocks in their places, as they are now."""
    for block in sorted(blocks, key=lambda block: block.start, reverse=True):
        text = text[: block.start] + block.printed + text[block.end :]
    return text


def difference(page: str, seen: str) -> list[str]:
    """The lines in which two texts differ, of what is the same in every run; those seen with ``+``."""
    lines = difflib.ndiff(_lasting(page), _lasting(seen))
    return [line for line in lines if line[0] in "+-"]


def _lasting(text: str) -> list[str]:
    lines = [
        re.sub(r"\d+", "#", line) if _ADDRESS in line and not line.startswith("$") else line
        for line in map(partial(_VOLATILE.sub, "#"), text.splitlines())
    ]
    return [re.sub(r"\s+", " ", line).rstrip() for line in lines]


def rehearse(prelude: Sequence[Block], blocks: Sequence[Block]) -> list[Block]:
    """The blocks of one name with what their commands showed now. Raises RehearsalError for one that does not end."""
    with stage(settings=blocks[0].settings) as environment, Shell(environment) as shell:
        for block in prelude:
            for step in block.steps:
                shell.type(step.command)
        return [
            replace(block, steps=tuple(replace(step, shown=shell.type(step.command)) for step in block.steps))
            for block in blocks
        ]


@click.command(help="Run the runbooks of docs/OPERATIONS.md against a stack of their own.")
@click.argument("page", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=PAGE)
@click.option("--only", multiple=True, metavar="NAME", help="Only rehearsals of this name; may be repeated.")
@click.option("--write", is_flag=True, help="Put what was to be seen into the page.")
def main(*, page: Path, only: tuple[str, ...], write: bool) -> None:
    """Rehearses and compares, or writes; ends with 1 when something differs or does not end."""
    blocks = blocks_of(page.read_text())
    prelude = [block for block in blocks if block.name == PRELUDE]
    names = list(dict.fromkeys(block.name for block in blocks if block.name != PRELUDE))
    if unknown := set(only) - set(names):
        raise click.UsageError(f"no rehearsal has the name {', '.join(sorted(unknown))}")
    differ = 0
    for name in only or names:
        mine = [block for block in blocks_of(page.read_text()) if block.name == name]
        try:
            seen = rehearse(prelude, mine)
        except RehearsalError as error:
            differ += 1
            click.echo(f"{name}: {error}")
            continue
        lines = difference("".join(block.printed for block in mine), "".join(block.printed for block in seen))
        if write:
            page.write_text(written(page.read_text(), seen))
        elif lines:
            differ += 1
        click.echo(f"{name}: {'written' if write else f'{len(lines)} lines differ' if lines else 'as the page says'}")
        click.echo("\n".join(f"    {line}" for line in lines))
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
