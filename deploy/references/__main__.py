"""Writes the generated sections of the documents; with ``--check`` only says which are stale, and ends with 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.references import configuration, endpoints, fields, headers, redis, refusals, rpcs
from deploy.references.sections import filled

DOCUMENTS = Path(__file__).parents[2] / "docs"

SECTIONS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "API.md": {
        "endpoints": endpoints.endpoints,
        "blocked endpoints": endpoints.blocked,
        "fields": fields.fields,
        "errors": refusals.refusals,
        "headers of replies": headers.replies,
        "headers of requests": headers.requests,
    },
    "reference/CONFIGURATION.md": {
        "settings": configuration.planes,
        "settings of the command line": configuration.command_line,
        "settings of Compose": configuration.compose,
        "settings of tools": configuration.tools,
    },
    "reference/RPC.md": {"admin services": rpcs.admin, "state services": rpcs.state, "messages": rpcs.messages},
    "reference/REDIS.md": {"keys": redis.keys},
}


def written(document: str) -> tuple[str, str]:
    """A document as it is, and as it should be."""
    text = (DOCUMENTS / document).read_text()
    return text, filled(text, {name: make() for name, make in SECTIONS[document].items()})


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m deploy.references", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = []
    for document in SECTIONS:
        before, after = written(document)
        if before != after:
            stale.append(document)
            if not check:
                (DOCUMENTS / document).write_text(after)
    for document in stale:
        print(f"{document}: {'stale' if check else 'written'}")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
