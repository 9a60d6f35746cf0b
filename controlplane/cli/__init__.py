"""The command line `neuronetz-gateway`: every RPC of the admin API as a command, made from the descriptors alone.

Adding an RPC adds its command; nothing here knows one of them by name, except `backendfile`, which lets three of them
edit an environment file instead. Order of reading: `entry` (the process: exit codes and error lines), `commands` (the
group and its commands), `options` and `values` (request fields as options), `settings` and `configfile` (where the
server is), `call` (the call itself), `plain`, `views` and `render` (answers as documents and tables), `descriptors`
(messages, comments and annotations), `local`, `doctor` and `adminapi` (commands that are no RPC), `backendfile` and
`envfile` (environment files), `errors`.

May import `shared`, `click`, `rich`, `grpc`, `google.protobuf` and the package data of `neuronetz`;
`controlplane.config`, `errors` and `store` only inside the command that migrates, `controlplane.doctor` only inside
that of its name, `controlplane.core.backends` and
`ollama` only when a file is edited. Nothing else of the control plane.
"""

from controlplane.cli.entry import main

__all__ = ["main"]
