-- The roles of Postgres, one for each kind of process; run by a superuser, as often as one likes:
--
--     psql -X -v ON_ERROR_STOP=1 -f roles.sql
--
-- in the image of Postgres as /docker-entrypoint-initdb.d/roles.sql. The passwords come from the environment; a role
-- whose password is not set is made without the right to log in. What each role may do is granted by the migrations
-- (`neuronetz-gateway migrate`, run by the owner of the database):
--
--     gateway_control   what control planes log in as: reads and writes rows, changes no table, deletes no audit row
--     gateway_operator  people who look into the database: reads both schemas, without credentials and hashes
--     console           the console service: reads schema gateway, inserts into the revocations outbox
--
-- Data planes have no role: they do not know where Postgres is.

\getenv control_password GATEWAY_CONTROL_PASSWORD
\getenv operator_password GATEWAY_OPERATOR_PASSWORD
\getenv console_password GATEWAY_CONSOLE_PASSWORD

SELECT format('CREATE ROLE %I', wanted)
FROM unnest(ARRAY['gateway_control', 'gateway_operator', 'console']) AS wanted
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) \gexec

\if :{?control_password}
ALTER ROLE gateway_control LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'control_password';
\endif
\if :{?operator_password}
ALTER ROLE gateway_operator LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'operator_password';
ALTER ROLE gateway_operator SET default_transaction_read_only = on;
\endif
\if :{?console_password}
ALTER ROLE console LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'console_password';
\endif
