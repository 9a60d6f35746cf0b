"""An hour of a whole gateway: ``python -m tests.bench.soak [--minutes 60] [--rate 25] [--json FILE] [--plot FILE]``.

Two data planes, two control planes, Postgres, Redis and two mock Ollamas at a fixed rate, both dialects, streams and
whole replies, six tenants. One client in ten leaves at a random point, one request in twenty meets a backend that
fails, before the first record or in mid-stream; some are refused, some tenants run into their limits, one has its key
replaced again and again. Every ten seconds every process is sampled.

Judged at the end: memory in the last twelfth is at most a tenth above that between a sixth and a quarter of the run;
descriptors, tasks, connections and leases are at most two more than before the load; and the books agree
(``assert_invariants``). Before and after the load a trickle of requests lets go what is kept for a while, then nothing
is asked for half a minute, and that is what is compared. Ends with status 1 when something does not hold.

``--redraw FILE`` makes the picture and the page again from what ``--json`` wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.failover_document import filled
from tests.bench.soak_load import PACE, Load, crowd
from tests.bench.soak_samples import SAMPLE_EVERY_S, Samples, Series
from tests.bench.soak_verdict import SILENCE_S, Phases, Soak, changes, page, picture, wrong
from tests.e2e.accounts import assert_invariants
from tests.e2e.harness import Gateway, MockOllama, running

TRICKLE_PER_S = 2.0
# Enough for what is kept for a while to go: idle connections to backends (30 s) and to Postgres (60 s).
CALM_BEFORE_S, CALM_AFTER_S = 75.0, 90.0
SETTLE_TIMEOUT_S = 120.0
_OPTIONS = (
    "--control-replicas=2",
    "--set=ARGON2_TIME_COST=1",
    "--set=ARGON2_MEMORY_COST_KIB=8192",
    "--set=OLLAMA_READ_TIMEOUT_S=10",
    "--set=OLLAMA_IDLE_TIMEOUT_S=3",
)
# A backend that fails twice, a machine that is too slow for a moment.
_MAY_FAIL = (0, 502, 503, 504)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of load (60)")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second (25)")
    parser.add_argument("--workers", type=int, default=1, help="of each data plane (1)")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked (1)")
    parser.add_argument("--json", type=Path, help="write the whole run there")
    parser.add_argument("--plot", type=Path, help="write a picture there, docs/soak.svg")
    parser.add_argument("--document", type=Path, help="put the figures into this page, docs/SOAK.md")
    parser.add_argument("--redraw", type=Path, help="no run: picture and page of this one")
    options = parser.parse_args()
    soak = msgspec.json.decode(options.redraw.read_bytes(), type=Soak) if options.redraw else _soaked(options)
    if options.json:
        options.json.write_bytes(msgspec.json.encode(soak))
    if options.plot:
        options.plot.write_text(picture(soak))
    if options.document:
        options.document.write_text(filled(options.document.read_text(), page(soak)))
    _say(page(soak))
    return 1 if soak.wrong else 0


def _soaked(options: argparse.Namespace) -> Soak:
    with contextlib.ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mocks = [stack.enter_context(running(MockOllama(name))) for name in ("first", "second")]
        for mock in mocks:
            mock.settings(**PACE)
        workers = f"--set=GATEWAY_WORKERS={options.workers}"
        gateway = stack.enter_context(running(Gateway(state, mocks, *_OPTIONS, workers, replicas=2)))
        return _run(gateway, mocks, options)


def _run(gateway: Gateway, mocks: Sequence[MockOllama], options: argparse.Namespace) -> Soak:
    began_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    tenants = crowd(gateway)
    gateway.wait_for_models(tenants[0].keys[0], "llama3.2:latest", "qwen3:8b")
    load = Load(gateway, mocks, tenants, seed=options.seed)
    load.rate = TRICKLE_PER_S

    def told(at_s: float, series: Mapping[str, Series]) -> None:
        for mock in mocks:
            mock.collect()
        _say(_progress(at_s, load, series))

    with Samples(gateway, told) as samples, load:
        time.sleep(CALM_BEFORE_S)
        load.rate = 0
        time.sleep(SILENCE_S)
        load_s = samples.now_s
        load.rate, load.makes_trouble = options.rate, True
        time.sleep(60 * options.minutes)
        load.rate, load.makes_trouble = TRICKLE_PER_S, False
        for mock in mocks:
            mock.unscript()
        calm_s = samples.now_s
        time.sleep(CALM_AFTER_S)
        load.rate = 0
        time.sleep(SILENCE_S)
        end_s = samples.now_s
    phases = Phases(load_s=load_s, calm_s=calm_s, end_s=end_s)
    soak = Soak(
        began_at=began_at,
        minutes=options.minutes,
        rate=options.rate,
        phases=phases,
        series=samples.series,
        figures=_figures(load, samples),
        wrong=wrong(changes(samples.series, phases)),
    )
    if options.json:
        # An hour is not lost because the books cannot be read.
        options.json.write_bytes(msgspec.json.encode(soak))
    soak.wrong += _books(gateway, mocks, load)
    return soak


def _books(gateway: Gateway, mocks: Sequence[MockOllama], load: Load) -> list[str]:
    found = ["a client was told a key"] if load.told_a_key else []
    try:
        assert_invariants(
            gateway, mocks, load.answers, may_fail=_MAY_FAIL, attempts=len(mocks), timeout_s=SETTLE_TIMEOUT_S
        )
    except AssertionError as error:
        found.append(str(error))
    return found


def _figures(load: Load, samples: Samples) -> dict[str, Any]:
    return {
        "asked": load.asked,
        "left": load.statuses["left"],
        "faults": sum(load.faults.values()),
        "kinds": ", ".join(f"{kind} × {count}" for kind, count in sorted(load.faults.items())),
        "rotated": load.rotated,
        "statuses": dict(load.statuses),
        "ends": dict(load.ends),
        "late_s": load.late_s,
        "missed_scrapes": samples.missed,
        "sampled_every_s": SAMPLE_EVERY_S,
    }


def _progress(at_s: float, load: Load, series: Mapping[str, Series]) -> str:
    memory = " ".join(
        f"{one.readings[-1].values['rss_bytes'] / 2**20:.0f}"
        for name, one in series.items()
        if name not in ("redis", "postgres", "up") and "rss_bytes" in one.readings[-1].values
    )
    redis, postgres = series["redis"].readings[-1].values, series["postgres"].readings[-1].values
    statuses = " ".join(f"{status}×{count}" for status, count in sorted(load.statuses.items()))
    return (
        f"{at_s:6.0f} s  RSS {memory} MiB  Redis {redis['used_bytes'] / 2**20:.1f} MiB {redis['keys']:g} keys "
        f"{redis['waiting']:g} waiting  rows {postgres['rows']:g}  {statuses}  late {load.late_s:.2f} s"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
