#!/usr/bin/env bash
# The whole gateway on this machine in front of a mock Ollama, by one command: prints a key, the address of the playground
# and commands to paste. Ctrl-C stops it, --down also removes its state, --help lists the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/bootstrap.sh
. deploy/bootstrap.sh

# Silent where nothing is to be installed for the first time.
environment=${UV_PROJECT_ENVIRONMENT:-.venv}
[ -d "$environment" ] && quiet=--quiet || quiet=--no-progress
"$UV" sync --frozen "$quiet" --inexact --no-default-groups --group local
# Not `uv run`: the process that is signalled is then the one that stops everything.
exec "$environment/bin/python" -m deploy.local demo "$@"
