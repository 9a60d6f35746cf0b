"""``python -m tests.faults.nemesis [--minutes 2] [--seed S] [--history FILE] [--json]``; status 1: something is wrong.

Prints the schedule's seed first: the same seed and minutes give the same faults at the same times. ``--judge FILE``
judges a history that there is already.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.fleet import fleet
from tests.faults.nemesis.history import History, read
from tests.faults.nemesis.judge import judge
from tests.faults.nemesis.run import run
from tests.faults.nemesis.timeline import summary, timeline


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Random faults under load, and whether every promise held.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults happen (2)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the schedule (random)")
    parser.add_argument("--data-planes", type=int, default=2, help="how many (2)")
    parser.add_argument("--history", type=Path, default=Path("nemesis.jsonl"), help="file of events (nemesis.jsonl)")
    parser.add_argument("--judge", type=Path, help="judge this history instead of making one")
    parser.add_argument("--json", action="store_true", help="the summary as JSON instead of the timeline")
    arguments = parser.parse_args()
    failure = "" if arguments.judge else _make(arguments)
    events = read(arguments.judge or arguments.history)
    wrong = [*judge(events), *([failure] if failure else [])]
    for line in () if arguments.json else timeline(events):
        _write(line)
    _write(json.dumps(summary(events, wrong), indent=2))
    return 1 if wrong else 0


def _make(arguments: argparse.Namespace) -> str:
    """Makes a history; what did not come true at its end, if anything."""
    _write(f"seed {arguments.seed}", sys.stderr)
    arguments.history.unlink(missing_ok=True)
    history = History(arguments.history)
    with tempfile.TemporaryDirectory() as state:
        try:
            with fleet(Path(state), data_planes=arguments.data_planes) as whole:
                run(whole, history, seed=arguments.seed, duration_s=60 * arguments.minutes)
        except AssertionError as error:
            # What the processes said about it.
            logs = arguments.history.with_suffix(".logs")
            shutil.copytree(Path(state) / "fleet" / "logs", logs, dirs_exist_ok=True)
            return f"{error}; logs are in {logs}"
        finally:
            history.close()
    return ""


def _write(line: str, where=None) -> None:
    print(line, file=where or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
