#!/usr/bin/env bash
# The whole suite, on a machine with or without uv: ./tests/run.sh [pytest arguments]
# Without arguments a second pass repeats the tests marked `redis` on the distribution's Redis, where that is 7.0 or newer:
# the first pass uses the bundled Valkey. Then everything that the processes of both left behind is searched for secrets.
# Linters and type checks are tests too (tests/house). Two processes share the files of tests: most of them wait.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/bootstrap.sh
. deploy/bootstrap.sh

if [ $# -gt 0 ]; then
    exec "$UV" run --frozen pytest -p no:valkey "$@"
fi

pytest() {
    "$UV" run --frozen pytest -p no:valkey -n 2 --dist loadfile --no-loadscope-reorder "$@"
}

status=0
left=$(mktemp -d)
pytest --basetemp="$left/first" || status=$?

redis=$(command -v redis-server || true)
if [ -n "$redis" ] && [[ $("$redis" --version) =~ v=([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 7)); then
    echo "Second pass: tests marked \`redis\` on $redis"
    GATEWAY_REDIS_BIN=$redis pytest -m redis --basetemp="$left/second" || status=$?
fi

echo "Secrets in what they left behind:"
"$UV" run --frozen python -m tests.canaries "$left" || status=$?
if [ "$status" -eq 0 ]; then
    rm -rf "$left"
else
    echo "It is kept in $left"
fi
exit "$status"
