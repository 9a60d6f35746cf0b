"""The embedded stack: the whole gateway with a private Postgres and Redis as child processes, without containers.

`postgres` and `redis` can be used alone (tests do); `stack` puts the gateway together from them; `commands` holds the
click commands `up` and `demo`. It may import `deploy.local`, the admin stubs, click, grpc, psutil and rich: never a
plane.

One rule is everywhere: whatever is started here dies with the process that started it, also when that is killed.
"""
