#!/bin/sh
# For /docker-entrypoint-initdb.d of the image of Postgres: makes the roles of roles.sql when a database is made, with the
# passwords that lie as files in $SECRETS.
set -eu
secrets=${SECRETS:-/run/secrets}
for role in control operator console; do
    password=$(cat "$secrets/postgres_${role}_password")
    export "GATEWAY_$(echo "$role" | tr '[:lower:]' '[:upper:]')_PASSWORD=$password"
done
psql -X -q -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" -f "${ROLES:-/etc/gateway/roles.sql}"
