#!/bin/sh
# Prints users.conf with the passwords of the environment, as hashes:
#
#     GATEWAY_REDIS_DATAPLANE_PASSWORD=… GATEWAY_REDIS_CONTROLPLANE_PASSWORD=… GATEWAY_REDIS_OPERATOR_PASSWORD=… \
#         ./render.sh > /run/redis/users.conf
set -eu

hash_of() {
    # Not as an argument: the process list is for everybody.
    printf '%s' "$1" | sha256sum | cut -d ' ' -f 1
}

for name in DATAPLANE CONTROLPLANE OPERATOR; do
    eval "password=\${GATEWAY_REDIS_${name}_PASSWORD:-}"
    if [ -z "$password" ]; then
        echo "GATEWAY_REDIS_${name}_PASSWORD is not set" >&2
        exit 64
    fi
done

sed -e "s/@dataplane@/$(hash_of "$GATEWAY_REDIS_DATAPLANE_PASSWORD")/" \
    -e "s/@controlplane@/$(hash_of "$GATEWAY_REDIS_CONTROLPLANE_PASSWORD")/" \
    -e "s/@operator@/$(hash_of "$GATEWAY_REDIS_OPERATOR_PASSWORD")/" \
    "$(dirname "$0")/users.conf"
