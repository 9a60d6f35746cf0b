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
    "$UV" run --frozen pytest -p no:valkey "$@"
}

# One pass over what the arguments choose: `pass NAME [pytest arguments]`. On a machine that others use, too, TESTS_UNSTABLE
# says how many tests may fail beside others; each of them has to pass twice by itself, and is named.
pass() {
    local name=$1 status=0 failed=()
    shift
    pytest -n 2 --dist loadfile --no-loadscope-reorder -o cache_dir="$cache/$name" --basetemp="$left/$name" "$@" || status=$?
    if [ "$status" -eq 1 ] && [ "${TESTS_UNSTABLE:-0}" -gt 0 ]; then
        mapfile -t failed < <("$UV" run --frozen python -c 'import json, sys
for test in json.load(sys.stdin): print(test)' <"$cache/$name/v/cache/lastfailed")
        if [ "${#failed[@]}" -gt 0 ] && [ "${#failed[@]}" -le "$TESTS_UNSTABLE" ] &&
            pytest --basetemp="$left/$name.alone" "${failed[@]}" && pytest --basetemp="$left/$name.again" "${failed[@]}"; then
            printf 'UNSTABLE, to be repaired: %s\n' "${failed[@]}"
            status=0
        fi
    fi
    return "$status"
}

status=0
left=$(mktemp -d)
cache=$(mktemp -d)
pass first || status=$?

redis=$(command -v redis-server || true)
if [ -n "$redis" ] && [[ $("$redis" --version) =~ v=([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 7)); then
    echo "Second pass: tests marked \`redis\` on $redis"
    GATEWAY_REDIS_BIN=$redis pass second -m redis || status=$?
fi

echo "Secrets in what they left behind:"
"$UV" run --frozen python -m tests.canaries "$left" || status=$?
rm -rf "$cache"
if [ "$status" -eq 0 ]; then
    rm -rf "$left"
else
    echo "It is kept in $left"
fi
exit "$status"
