"""The matrix of faults and abuse: every row with the tests that prove it, or with the reason why it cannot run here.

`test_registry` compares: each row of ``IDS`` stands here once, each test exists, each row has a test or a reason. The
rows themselves, with their inputs and what is expected, are described in `registry_a1_to_a5` and `registry_a6_to_a9`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# How many rows each part has.
PARTS = {"A1": 16, "A2": 9, "A3": 10, "A4": 13, "A5": 12, "A6": 8, "A7": 13, "A8": 7, "A9": 6}
IDS = tuple(f"{part}.{number}" for part, count in PARTS.items() for number in range(1, count + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One row: what it is about, and what proves it.

    ``tests`` are ``path::name`` below ``tests/``, without parameters. ``lacks`` says which part of the row no test
    covers, and why.
    """

    row: str
    about: str
    tests: tuple[str, ...] = ()
    lacks: str = ""


def proof(row: str, about: str, *tests: str, lacks: str = "") -> Proof:
    """A row; names after the first of a file may leave out its path: ``::another_test``. All lack their ``test_``."""
    whole: list[str] = []
    path = ""
    for test in tests:
        own_path, _, name = test.partition("::")
        path = own_path or path
        whole.append(f"{path}::test_{name}")
    return Proof(row=row, about=about, tests=tuple(whole), lacks=lacks)


def missing(tests: Iterable[str], root: Path) -> list[str]:
    """Those of the tests, each a ``path::name`` below ``tests/`` of ``root``, that do not exist."""
    parted = [(test, *test.partition("::")[::2]) for test in tests]
    return [test for test, path, name in parted if name not in _functions(root / "tests" / path)]


@cache
def _functions(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions))
