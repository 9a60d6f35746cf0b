"""The connection to Postgres: one Piccolo engine for the process, with its pool, transactions and deadlines.

``DB`` is made when this module is imported but connects only in ``connect``. Never ``gather`` inside a transaction and
never start a task in one: the transaction travels in a context variable and the task would inherit it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from piccolo.engine.postgres import PostgresEngine, PostgresTransaction

from controlplane.core.database_url import connection_options
from controlplane.errors import StoreUnavailableError

_APPLICATION_NAME = "neuronetz-control"
CONNECT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 5.0

# What the driver raises when the server is away, going away, coming back or too slow.
_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    # Not migrated yet: the process is just starting, or somebody is making the database anew.
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

type Connection = PoolConnectionProxy[asyncpg.Record]


class SafeTransaction(PostgresTransaction):
    """A transaction that always returns its connection to the pool, also when the rollback fails or is cancelled."""

    async def get_connection(self) -> Any:
        """A connection from the pool, within a deadline."""
        if self.engine.pool:
            return await self.engine.pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        return await self.engine.get_new_connection()

    async def __aenter__(self) -> PostgresTransaction:
        if self._parent is not None:
            return self._parent
        self.connection = await self.get_connection()
        try:
            self.transaction = self.connection.transaction()
            await self.transaction.start()
        except BaseException:
            await self._release()
            raise
        self.context = self.engine.current_transaction.set(self)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Commits, or rolls back and lets the exception pass."""
        if self._parent is not None:
            return False
        self.engine.current_transaction.reset(self.context)
        try:
            if exception is None:
                await self.transaction.commit()
            elif not self.connection.is_closed():
                with contextlib.suppress(*_AWAY):
                    await self.transaction.rollback()
        finally:
            await self._release()
        return False

    async def _release(self) -> None:
        if self.engine.pool:
            await self.engine.pool.release(self.connection)
        else:
            await self.connection.close()


class GatewayEngine(PostgresEngine):
    """Piccolo's engine without its habit of connecting when constructed."""

    async def check_version(self) -> None:
        """Nothing: the version is checked when the migrations run."""

    async def prep_database(self) -> None:
        """Nothing: the gateway needs no extension."""

    def transaction(self, allow_nested: bool = True) -> PostgresTransaction:  # noqa: FBT001, FBT002 - Piccolo's name
        """A transaction; one inside another is the same one."""
        return SafeTransaction(engine=self, allow_nested=allow_nested)

    async def _run_in_pool(self, query: str, args: Sequence[Any] | None = None) -> Any:
        if self.pool is None:
            raise StoreUnavailableError("not connected to Postgres")
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            return await connection.fetch(query, *(args or ()))

    async def _run_in_new_connection(self, query: str, args: Sequence[Any] | None = None) -> Any:  # noqa: ARG002
        raise StoreUnavailableError("not connected to Postgres")


DB = GatewayEngine(config={"database": "gateway"})


# Of a statement that has ended: its text, without values; the seconds that it took; what it raised.
type OnStatement = Callable[[str, float, BaseException | None], None]


async def connect(url: str, *, pool_size: int, pool_overflow: int, on_statement: OnStatement | None = None) -> None:
    """Opens the pool of the process, at most ``pool_size + pool_overflow`` connections.

    ``on_statement`` is told of each statement in the context of whoever sent it, and must not raise. Connecting
    twice is no error. Raises ``StoreUnavailableError``.
    """
    if DB.pool is not None:
        return
    DB.config = connection_options(url) | {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": COMMAND_TIMEOUT_S,
        # The migrations' bookkeeping table has no schema of its own; everything else is named in full.
        "server_settings": {"search_path": "control", "application_name": _APPLICATION_NAME},
    }
    with translated():
        await DB.start_connection_pool(
            min_size=1,
            max_size=pool_size + pool_overflow,
            max_inactive_connection_lifetime=60.0,
            init=None if on_statement is None else _observing(on_statement),
        )


def _observing(on_statement: OnStatement) -> Callable[[Any], Awaitable[None]]:
    async def init(connection: Any) -> None:
        connection.add_query_logger(lambda seen: on_statement(seen.query, seen.elapsed, seen.exception))

    return init


def connections() -> int:
    """How many connections the pool has open."""
    return 0 if DB.pool is None else DB.pool.get_size()


async def disconnect() -> None:
    """Closes the pool, forcibly when its connections do not end in time."""
    pool, DB.pool = DB.pool, None
    if pool is None:
        return
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await pool.close()
    except (TimeoutError, *_AWAY):
        pool.terminate()


async def new_connection(purpose: str) -> asyncpg.Connection[asyncpg.Record]:
    """A connection outside the pool, for session locks and LISTEN; the caller closes it.

    Operators see the purpose in ``pg_stat_activity``, behind the name of the application. Raises
    ``StoreUnavailableError``; ``connect`` must have been called once.
    """
    named = {"application_name": f"{_APPLICATION_NAME} {purpose}"}
    options = {**DB.config, "server_settings": {**DB.config["server_settings"], **named}}
    with translated():
        return cast("asyncpg.Connection[asyncpg.Record]", await asyncpg.connect(**options))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's ways of saying that Postgres is away into ``StoreUnavailableError``."""
    try:
        yield
    except _AWAY as fault:
        if isinstance(fault, ValueError):
            # A value that the driver cannot send is a fault of ours, however long one waits.
            raise
        raise StoreUnavailableError(f"Postgres: {type(fault).__name__}") from fault


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[Connection]:
    """A transaction, with the raw connection for what Piccolo cannot say. Raises ``StoreUnavailableError``."""
    with translated():
        if DB.pool is None:
            raise StoreUnavailableError("not connected to Postgres")
        async with DB.transaction() as current:
            yield current.connection


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[Connection]:
    """A pooled connection outside any transaction. Raises ``StoreUnavailableError``."""
    with translated():
        if DB.pool is None:
            raise StoreUnavailableError("not connected to Postgres")
        async with DB.pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as acquired:
            yield acquired


async def ping() -> None:
    """One round trip. Raises ``StoreUnavailableError``."""
    async with connection() as held:
        await held.fetchval("SELECT 1")
