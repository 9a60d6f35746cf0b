#!/usr/bin/env bash
# Makes the secrets of compose.yml once, one file each: ./deploy/secrets.sh [folder]. What exists is kept.
# The folder is closed to everybody else; the files in it can be read by the users of the containers they are mounted into.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
render=$PWD/redis/render.sh
folder=${1:-secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

# keep NAME: writes what comes on stdin, unless the secret exists.
keep() {
    if [ -s "$1" ]; then
        cat >/dev/null
    else
        cat >"$1.new"
        chmod 444 "$1.new"
        mv "$1.new" "$1"
        echo "made $folder/$1" >&2
    fi
}

for name in key_pepper admin_token dataplane_token postgres_password \
    postgres_control_password postgres_operator_password postgres_console_password \
    redis_dataplane_password redis_controlplane_password redis_operator_password grafana_password; do
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' | keep "$name"
done
head -c 32 /dev/urandom | base64 | keep sealing_key

# Addresses with the credentials of whoever uses them. Only the migration is told the owner's.
printf 'postgres://gateway:%s@postgres:5432/gateway\n' "$(cat postgres_password)" | keep owner_database_url
printf 'postgres://gateway_control:%s@postgres:5432/gateway\n' "$(cat postgres_control_password)" | keep database_url
for plane in dataplane controlplane; do
    printf 'redis://gateway_%s:%s@redis:6379/0\n' "$plane" "$(cat "redis_${plane}_password")" | keep "redis_url_$plane"
done

# The users of Redis; without a password nobody is let in.
{
    GATEWAY_REDIS_DATAPLANE_PASSWORD=$(cat redis_dataplane_password) \
        GATEWAY_REDIS_CONTROLPLANE_PASSWORD=$(cat redis_controlplane_password) \
        GATEWAY_REDIS_OPERATOR_PASSWORD=$(cat redis_operator_password) \
        "$render"
    echo 'user default off resetpass'
} | keep redis_users
