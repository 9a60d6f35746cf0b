"""Everything that a gateway writes anywhere, logs, metrics, Redis's files, the database, and the secrets in it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

import httpx

from tests.e2e.harness import Gateway

# Of an API key, what follows the public prefix.
_PUBLIC_CHARACTERS = 12
_TABLES = (
    "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('gateway', 'control')"
)


def leaks(gateway: Gateway, canaries: Collection[str] = ()) -> list[str]:
    """Where a secret of the stack, an API key or a canary stands that must stand nowhere; without saying the secret.

    Of files, what was written since the last look: what was no secret then could not have been written before.
    """
    secrets = {f"secret {name}": value for name, value in _stack_secrets(gateway).items()}
    secrets |= {f"API key {key[:_PUBLIC_CHARACTERS]}": key[_PUBLIC_CHARACTERS:] for key in gateway.minted}
    secrets |= {f"canary {canary}": canary for canary in canaries}
    wanted = {name: value.encode() for name, value in secrets.items()}
    return [
        f"{name} in {place}" for place, text in _outputs(gateway) for name, value in wanted.items() if value in text
    ]


def _stack_secrets(gateway: Gateway) -> dict[str, str]:
    found: dict[str, str] = json.loads((gateway.state / "secrets.json").read_text())
    return found


def _outputs(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    yield from _files(gateway)
    for url in gateway.description["metrics_urls"]:
        try:
            yield url, httpx.get(url, timeout=30, trust_env=False).content
        except httpx.HTTPError:
            # A plane that is just starting again has written nothing here.
            continue
    for table in gateway.rows(_TABLES):
        rows = gateway.rows(f"SELECT one::text AS row FROM {table['name']} AS one")
        yield table["name"], "\n".join(row["row"] for row in rows).encode()


def _files(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    for folder in ("logs", "redis"):
        for path in sorted((gateway.state / folder).rglob("*")):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                # One that has shrunk was begun anew.
                start = gateway.looked_through.get(path, 0)
                file.seek(start if start <= path.stat().st_size else 0)
                text = file.read()
                gateway.looked_through[path] = file.tell()
            yield path.name, text
