#!/usr/bin/env bash
# Uses a running compose stack once, from the outside: makes a tenant and a key, streams a chat, revokes the key.
#   ./deploy/smoke.sh, with the GATEWAY_DOMAIN and COMPOSE_FILE of the stack. Needs docker compose and curl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

domain=${GATEWAY_DOMAIN:?}
model=${SMOKE_MODEL:-llama3.2}
url=https://$domain
authority=$(mktemp)
trap 'rm -f "$authority"' EXIT

gateway() { docker compose exec -T --index 1 controlplane neuronetz-gateway --output json "$@"; }
request() { curl --silent --show-error --no-buffer --max-time 60 --cacert "$authority" "$@"; }
status() { request --output /dev/null --write-out '%{http_code}' "$@"; }

# until_true WHAT COMMAND…: tries for a minute.
until_true() {
    local what=$1 tries=60
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "$what did not come true" >&2; exit 1; }
        sleep 1
    done
}

until_true "Caddy's authority" docker compose cp caddy:/data/caddy/pki/authorities/local/root.crt "$authority"
alive() { [ "$(status "$url/healthz")" = 200 ]; }
until_true "a gateway behind $url" alive

tenant=smoke-$RANDOM$RANDOM
gateway create-tenant --name "$tenant" --allow-all-models >/dev/null
key=$(gateway create-key --tenant "$tenant" --name smoke | sed -n 's/.*"api_key": *"\([^"]*\)".*/\1/p')
[ -n "$key" ] || { echo "no key was minted" >&2; exit 1; }

listed() { request -H "Authorization: Bearer $key" "$url/api/tags" | grep -q "\"$model"; }
until_true "$model among the models" listed

reply=$(request -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$url/v1/chat/completions" \
    --data-raw "{\"model\":\"$model\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}")
grep -q '^data: \[DONE\]$' <<<"$reply" || { echo "the stream did not end well: $reply" >&2; exit 1; }

gateway revoke-key --prefix "${key:0:12}" --yes >/dev/null
test "$(status -H "Authorization: Bearer $key" "$url/v1/models")" = 401
echo "served, streamed and revoked at $url"
