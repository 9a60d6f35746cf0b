"""``python -m tests.fuzz --count 100000 --seed N``: a campaign from the command line.

Ends with 1 if a body failed; each such body, and what is left of it after reduction, is a file in ``--failures``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.campaign import Failure, Result


def main() -> int:
    """Runs the campaign; returns the exit code."""
    options = _options()
    result = asyncio.run(campaign.run(options.count, options.seed, report=_report))
    files = [_write(failure, options.failures) for failure in result.failures]
    text = _as_json(result, files) if options.output == "json" else _summary(result, files)
    sys.stdout.write(f"{text}\n")
    return 1 if files else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Differential fuzz of request bodies.")
    parser.add_argument("--count", type=int, default=100_000, help="how many mutated bodies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which bodies (default: %(default)s)")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="how to print the result")
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), help="folder for failing bodies (default: %(default)s)"
    )
    return parser.parse_args()


def _report(result: Result) -> None:
    rate = result.bodies / max(result.duration_s, 1e-9)
    sys.stderr.write(
        f"{result.bodies} bodies, {result.statuses[200]} accepted, {len(result.failures)} failed, {rate:.0f}/s\n"
    )


def _write(failure: Failure, folder: Path) -> tuple[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{failure.path.strip('/').replace('/', '-')}-seed{failure.seed}-{failure.index}-{failure.kind}"
    whole, least = folder / f"{name}.json", folder / f"{name}.least.json"
    whole.write_bytes(failure.body)
    least.write_bytes(failure.least)
    return str(whole), str(least)


def _as_json(result: Result, files: list[tuple[str, str]]) -> str:
    return json.dumps(
        {
            "seed": result.seed,
            "bodies": result.bodies,
            "statuses": {str(status): result.statuses[status] for status in sorted(result.statuses)},
            "endpoints": dict(sorted(result.endpoints.items())),
            "compared": result.compared,
            "longest_body_bytes": result.longest_body,
            "slowest_parse_ms": round(result.slowest_parse_s * 1000, 3),
            "slowest_body_bytes": result.slowest_body_bytes,
            "duration_s": round(result.duration_s, 1),
            "failures": [
                {
                    "endpoint": failure.path,
                    "seed": failure.seed,
                    "index": failure.index,
                    "kind": failure.kind,
                    "text": failure.text,
                    "body_file": whole,
                    "least_file": least,
                }
                for failure, (whole, least) in zip(result.failures, files, strict=True)
            ],
        },
        indent=2,
    )


def _summary(result: Result, files: list[tuple[str, str]]) -> str:
    statuses = ", ".join(f"{status}: {result.statuses[status]}" for status in sorted(result.statuses))
    lines = [
        f"{result.bodies} bodies of seed {result.seed} in {result.duration_s:.0f} s: {len(result.failures)} failed",
        f"verdicts     {statuses}",
        f"compared     {result.compared} accepted bodies that Go reads too",
        f"longest      {result.longest_body} bytes",
        f"slowest      {result.slowest_parse_s * 1000:.1f} ms for {result.slowest_body_bytes} bytes",
    ]
    for failure, (_, least) in zip(result.failures, files, strict=True):
        lines += [f"FAILED {failure.path} seed {failure.seed} body {failure.index}", f"  {failure.text}", f"  {least}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
