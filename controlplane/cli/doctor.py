"""``neuronetz-gateway doctor``: the findings of ``controlplane.doctor`` as a table, a document and an exit code."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli import envfile, render, settings
from controlplane.cli.errors import CLIError, Exit
from controlplane.cli.rpccommand import Session, common_flags
from controlplane.cli.views import Listing

if TYPE_CHECKING:
    from controlplane.doctor import Report

_COLUMNS = ("status", "check", "seen", "what to do")


@click.command(
    params=[
        settings.common_options()[0],
        click.Option(
            ["env_file", "--env-file"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="File of NAME=value lines with settings that the environment does not have.",
        ),
        click.Option(
            ["timeout_s", "--timeout"],
            type=click.FloatRange(min=0.1, max=600),
            metavar="SECONDS",
            default=5.0,
            show_default=True,
            help="Longest wait for each check; they run at the same time.",
        ),
    ]
)
@click.pass_context
def doctor(ctx: click.Context, /, *, env_file: Path | None, timeout_s: float, **_: Any) -> int:
    """Check a deployment from here and say what to do about each finding.

    Redis, Postgres, clocks, certificates, secrets, backends, data planes and rebuilt state, as far as the settings of
    this environment lead to them: best in the environment of a control plane. It changes nothing and shows no
    secret. Ends with 0 when all is well, 7 after warnings, 8 when something does not work or is not safe.
    """
    session: Session = ctx.obj
    output = settings.read({**session.flags, **common_flags(ctx)}, session.environ).output
    report = asyncio.run(_examined(session.environ, env_file, timeout_s))
    if output == "table":
        _show(report)
    else:
        render.show_document(_document(report), output)
    return {"warning": Exit.WARNED, "failed": Exit.UNSOUND}.get(report.status, Exit.OK)


async def _examined(environ: Mapping[str, str], env_file: Path | None, timeout_s: float) -> "Report":
    # Only this command needs the stores, and a client's machine may not have them.
    from controlplane.cli import adminapi  # noqa: PLC0415
    from controlplane.doctor import Deployment, examine  # noqa: PLC0415
    from shared import logs  # noqa: PLC0415
    from shared.clock import SystemClock  # noqa: PLC0415

    logs.configure(level="error", style="console")
    completed = environ if env_file is None else _completed(environ, env_file)
    further = adminapi.checks(completed, timeout_s=timeout_s)
    deployment = Deployment.read(completed, env_file=env_file, is_known=bool(further))
    return await examine(deployment, clock=SystemClock(), timeout_s=timeout_s, further=further)


def _completed(environ: Mapping[str, str], path: Path) -> dict[str, str]:
    """The environment, with the file's value of each setting that it does not have, directly or by a file."""
    from controlplane.config import Settings  # noqa: PLC0415 - see above
    from shared.config import declared  # noqa: PLC0415

    if not path.is_file():
        raise click.UsageError(f"--env-file: there is no file {path}")
    completed = dict(environ)
    try:
        text = envfile.read(path)
        for item in (*declared(Settings), *declared(settings.Settings)):
            variants = (item.setting.name, f"{item.setting.name}_FILE")
            if not any(environ.get(name) for name in variants):
                found = {name: value for name in variants if (value := envfile.value_of(text, name)) is not None}
                completed |= found
    except envfile.EnvFileError as fault:
        raise CLIError(str(fault)) from fault
    return completed


def _show(report: "Report") -> None:
    from controlplane.doctor import Status  # noqa: PLC0415 - see above

    rows = tuple((item.status.value, item.name, item.seen, item.advice) for item in report.findings)
    render.show_listing(Listing(title="findings", columns=_COLUMNS, numeric=(False,) * len(_COLUMNS), rows=rows))
    counts = [f"{number} {status}" for status in reversed(Status) if (number := report.count(status))]
    click.echo(f"\n{report.status}: {', '.join(counts)}")


def _document(report: "Report") -> dict[str, Any]:
    return {
        "status": report.status.value,
        "findings": [
            {"name": item.name, "status": item.status.value, "seen": item.seen, "advice": item.advice}
            for item in report.findings
        ],
    }
