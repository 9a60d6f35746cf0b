"""Headers of replies and requests, as ``dataplane.api.header`` explains them."""

from __future__ import annotations

from dataplane.api import header
from deploy.references.sections import code, table


def replies() -> str:
    """The table of headers of replies."""
    rows = ((code(name.decode()), said.when, said.what) for name, said in header.REPLY.items())
    return table(("Header", "On", "What it says"), rows)


def requests() -> str:
    """The table of headers of requests."""
    return table(
        ("Header", "What is made of it"), ((code(name.decode()), what) for name, what in header.REQUEST.items())
    )
