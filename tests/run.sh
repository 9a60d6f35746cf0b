#!/usr/bin/env bash
# The whole suite, on a machine with or without uv: ./tests/run.sh [pytest arguments]
# Without arguments a second pass repeats the tests marked `redis` on the distribution's Redis, where that is 7.0 or newer:
# the first pass uses the bundled Valkey. Linters and type checks are tests too (tests/house).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/bootstrap.sh
. deploy/bootstrap.sh

status=0
"$UV" run --frozen pytest -p no:valkey "$@" || status=$?

redis=$(command -v redis-server || true)
if [ $# -eq 0 ] && [ -n "$redis" ] && [[ $("$redis" --version) =~ v=([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 7)); then
    echo "Second pass: tests marked \`redis\` on $redis"
    GATEWAY_REDIS_BIN=$redis "$UV" run --frozen pytest -p no:valkey -m redis || status=$?
fi
exit "$status"
