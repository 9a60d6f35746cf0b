#!/usr/bin/env bash
# Makes the secrets of compose.yml once, one file each: ./deploy/secrets.sh [folder]. What exists is kept.
# The folder is closed to everybody else; the files in it can be read by the users of the containers they are mounted into.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
folder=${1:-secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

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

random 32 | keep key_pepper
head -c 32 /dev/urandom | base64 | keep sealing_key
random 32 | keep admin_token
random 32 | keep dataplane_token
random 32 | keep postgres_password
random 32 | keep redis_password
printf 'postgres://gateway:%s@postgres:5432/gateway\n' "$(cat postgres_password)" | keep database_url
printf 'redis://gateway:%s@redis:6379/0\n' "$(cat redis_password)" | keep redis_url
# Nobody without a password; the planes may do everything with their own keys and nothing to the server itself.
{
    echo 'user default off resetpass'
    printf 'user gateway on #%s ~gateway:* &* +@all -@dangerous -@admin +info\n' \
        "$(printf %s "$(cat redis_password)" | sha256sum | cut -d' ' -f1)"
} | keep redis_acl
