"""Comments of the protos as help texts, and the page about exit codes. Pure."""

import re
from collections.abc import Collection, Mapping

from controlplane.cli.errors import MEANINGS

_QUOTED = re.compile(r"`([a-z][a-z0-9_]*)`")


def paragraphs(comment: str) -> str:
    """A comment as click wants it: paragraphs are re-wrapped, except those that are indented, such as examples."""
    blocks = comment.split("\n\n")
    return "\n\n".join(_unwrapped(block) if _is_indented(block) else block for block in blocks)


def option_names(comment: str, flags: Mapping[str, str]) -> str:
    """The comment with each quoted field that is an option (``flags``: field name → flag) called as it is typed."""
    return _QUOTED.sub(lambda found: f"--{flags[found[1]]}" if found[1] in flags else found[0], comment)


def examples(comment: str) -> list[str]:
    """The indented lines of a comment."""
    return [line.strip() for block in comment.split("\n\n") if _is_indented(block) for line in block.splitlines()]


def exit_codes() -> str:
    """What each exit code means, one per line."""
    return "\n".join(["Exit codes:", *(f"  {code:<4d}{meaning}" for code, meaning in MEANINGS.items())])


def shadowed(flags: Collection[str]) -> str:
    """A note about common options (``flags``) whose names this command uses for something else."""
    if not flags:
        return ""
    names = ", ".join(sorted(flags))
    return f"{names} means the option above; the common option of that name can only stand before the command."


def _is_indented(block: str) -> bool:
    return all(line.startswith("  ") for line in block.splitlines())


def _unwrapped(block: str) -> str:
    return "\n".join(["\b", *block.splitlines()])
