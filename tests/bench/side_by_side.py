"""Two releases at once (A8.6): ``python -m tests.bench.side_by_side COMMIT [--requests 200]``.

A gateway of today with one data plane of its own and one of an earlier commit (a worktree of it), both under load at
the same time: limits, budgets, a key that is revoked, a tenant that is suspended. Afterwards the books must agree, with
rows of both. Ends with status 1 when they do not, or when a request failed that should not have.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import Answer, ask_all, chat
from tests.e2e.harness import Gateway, MockOllama, eventually, running
from tests.faults.starved import DataPlane, data_plane

ROOT = Path(__file__).parents[2]
BUDGET_TOKENS = 4000


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """The files of a commit."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(gateway: Gateway, old: DataPlane, mocks: list[MockOllama], requests: int) -> dict[str, Any]:
    """What both data planes answer to the same; raises AssertionError when the books do not agree."""
    urls = {"old": old.url, "new": gateway.url}
    gateway.tenant("both")
    gateway.tenant("narrow", concurrent=2)
    gateway.tenant("poor", budget_total=BUDGET_TOKENS)
    keys = {name: gateway.key(name) for name in ("both", "narrow", "poor")}
    found: dict[str, Any] = {}
    everything: list[Answer] = []

    def ask(name: str, tenant: str, count: int) -> None:
        answers = ask_all(list(urls.values()), keys[tenant], [chat(n, num_predict=32) for n in range(count)])
        everything.extend(answers)
        for number, (release, _) in enumerate(urls.items()):
            of_release = answers[number :: len(urls)]
            found.setdefault(name, {})[release] = dict(Counter(str(one.status) for one in of_release))

    ask("requests", "both", requests)
    ask("narrow tenant", "narrow", 24)
    ask("budget", "poor", requests)
    gateway.revoke(keys["both"])
    ask("revoked key", "both", 8)
    gateway.suspend_tenant("narrow")
    ask("suspended tenant", "narrow", 8)
    eventually(lambda: not gateway.open_leases(), timeout_s=20, what="leases that are closed")
    assert_invariants(gateway, mocks, everything, attempts=len(mocks))
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="of the old data plane")
    parser.add_argument("--requests", type=int, default=200, help="of each kind (200)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        code = stack.enter_context(worktree(options.commit, folder / "old"))
        mocks = [stack.enter_context(running(MockOllama("first")))]
        gateway = stack.enter_context(running(Gateway(folder / "state", mocks)))
        log = stack.enter_context((folder / "old.log").open("wb"))
        old = stack.enter_context(data_plane(gateway, stdout=log.fileno(), code=code))
        found = compare(gateway, old, mocks, options.requests)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    bad = {"0", "500", "502", "503", "504"}
    return 1 if any(bad & statuses.keys() for kind in found.values() for statuses in kind.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
