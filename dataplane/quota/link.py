"""The worker's one connection to Redis, shared by everything.

Commands of one turn of the event loop leave in one write; replies resolve futures in order, and a caller that is
cancelled leaves its place in the order behind. Every call has a deadline and is attempted once.

A call that misses its deadline *suspends* the link: whatever is in flight fails, the admissions among it are taken
back on the same connection (``undo``), a PING follows, and until it is answered every call fails at once. Redis
executes commands in their order, so an admission that waited in a sleeping Redis is abandoned the moment it comes to
life. Undos whose answer was not seen before a connection broke are sent first on the next one, as soon as it is known
which server that is.

Nothing is decided on a server that is not fit for it or has not our functions (``server``), and nothing while it is
unknown which one it is: ``incarnation`` is what the scripts compare the fence with.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never

import msgspec
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError

from dataplane.errors import CannotCheckError
from dataplane.quota.scripts import KNOWN, Call, command
from dataplane.quota.server import INFO_SECTIONS, Server, examine, fault_of, refusal_name
from dataplane.quota.wire import Wire
from shared import logs
from shared.backoff import Backoff
from shared.keyspace import Shard
from shared.lifecycle import Readiness
from shared.quota.library import is_unknown
from shared.redaction import Secret
from shared.redisconnection import RedisConnection

READINESS_CHECK = "redis"
CONNECT_TIMEOUT_S = 1.0
# How long a suspended link waits for its PING before it gives the connection up.
PROBE_TIMEOUT_S = 2.0
TELL_INTERVAL_S = 10.0
EXAMINE_INTERVAL_S = 1.0
# While the server is not fit: a rebuild waits for workers, but not for long.
EAGER_INTERVAL_S = 0.1
# A deadline is only believed to be missed after the event loop had another look at the socket.
_GRACE_S = 0.01
_MAX_CARRIED_UNDOS = 10_000

_INFO = command("INFO", *INFO_SECTIONS)
_KNOWN = KNOWN.call((), ()).packed
_PING = command("PING")

log = logs.get(__name__)


@dataclass(slots=True)
class LinkCounts:
    """What has happened since the worker started, for its metrics."""

    connections: int = 0
    suspensions: int = 0
    undos: int = 0
    errors: int = 0


class _Slot(msgspec.Struct, eq=False):
    """One place in the order of replies; that of an undo has no future, because nobody waits for it."""

    future: asyncio.Future[Any] | None
    deadline_s: float
    # How to take back what this slot's command did, or the undo itself; kept until its reply has been read.
    undo: Callable[[], Call] | None = None


class Link:
    """A multiplexed connection. Callers name the shard of what they ask, so that a cluster can have one per node.

    ``url`` is a Redis URL with credentials, database and TLS options; ``timeout_s`` the deadline of a call. ``run``
    keeps it connected; without it every call raises ``CannotCheckError``.
    """

    def __init__(self, *, url: Secret, timeout_s: float, readiness: Readiness | None = None) -> None:
        options: dict[str, Any] = dict(parse_url(url.reveal()))
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", RedisConnection)
        self._options = options | {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "driver_info": None,
        }
        self._timeout_s = timeout_s
        self._readiness = readiness
        self.counts = LinkCounts()
        self._backoff = Backoff(first_s=0.05, last_s=1.0)
        self._told_s: dict[str, float] = {}
        self._slots: deque[_Slot] = deque()
        self._carried: deque[Callable[[], Call]] = deque(maxlen=_MAX_CARRIED_UNDOS)
        self._wire: Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late: _Slot | None = None
        self._given_up: asyncio.Future[Never] | None = None
        self._suspended = False
        self._server: Server | None = None
        self._incarnation: bytes | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether something may be decided on what Redis says now."""
        return self._incarnation is not None and not self._suspended

    def incarnation(self, shard: Shard) -> bytes:
        """What the fence of a shard must begin with. Raises ``CannotCheckError``."""
        if self._incarnation is None:
            raise CannotCheckError(f"no trusted connection to Redis for shard {shard}")
        return self._incarnation

    def holds(self, shard: Shard, fence: bytes | None) -> bool:
        """Whether a fence that was read is valid for the server of its shard. Raises ``CannotCheckError``."""
        return fence is not None and fence.startswith(self.incarnation(shard))

    async def call(self, shard: Shard | None, call: Call, *, undo: Callable[[], Call] | None = None) -> Any:
        """Runs a script and returns its reply; ``undo`` takes it back when nobody will have seen the reply.

        ``shard`` is None for keys outside the shards. Raises ``CannotCheckError`` for everything that goes wrong.
        """
        try:
            return await self.submit(shard, call, undo=undo)
        except RedisError as fault:
            raise self._translated(fault) from None
        except asyncio.CancelledError:
            self._take_back(undo)
            raise

    def submit(self, shard: Shard | None, call: Call, *, undo: Callable[[], Call] | None = None) -> asyncio.Future[Any]:
        """Sends a script without waiting. The future may fail with ``CannotCheckError`` or an error of redis-py."""
        del shard  # there is one server
        self._require_trust()
        return self._send(call.packed, undo=undo)

    async def get(self, *keys: str) -> list[bytes | None]:
        """The values of keys of any shard, read in this order in one write. Raises ``CannotCheckError``."""
        return [value if value is None else bytes(value) for value in await self.read(*(("GET", key) for key in keys))]

    async def read(self, *commands: tuple[str, ...]) -> list[Any]:
        """Replies to plain commands of one key each, sent in one write. Raises ``CannotCheckError``."""
        self._require_trust()
        futures = [self._send(command(*words)) for words in commands]
        try:
            return [await future for future in futures]
        except RedisError as fault:
            raise self._translated(fault) from None
        finally:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # one failure tells enough; the others count as seen

    async def run(self) -> None:
        """Keeps the link connected until it is cancelled."""
        while True:
            connection = self._connection_class(**self._options)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await connection.connect()  # type: ignore[no-untyped-call] # redis-py types it in part
                self.counts.connections += 1
                await self._serve(connection)
            except* (RedisError, OSError, CannotCheckError) as faults:
                log.warning("redis_connection_lost", reason=repr(faults.exceptions[0]))
            finally:
                self._lose()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(self._backoff.next_s())

    async def _serve(self, connection: AbstractConnection) -> None:
        self._given_up = given_up = asyncio.get_running_loop().create_future()
        self._suspended = False
        self._wire = wire = Wire(connection, self._replied, given_up)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._examine(), name="redis-examine")
                await given_up
        finally:
            wire.close()

    def _replied(self, reply: Any) -> None:
        """Hands a reply to who has waited for it longest. Raises ``RedisError`` when the connection is at fault."""
        if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
            raise reply
        if not self._slots:
            raise InvalidResponse("a reply that nobody asked for")
        slot = self._slots.popleft()
        if slot.future is None:
            if isinstance(reply, ResponseError):
                self._tell(refusal_name(reply))
                if slot.undo is not None and is_unknown(reply):
                    # Nothing was executed: it goes out again when the functions are there.
                    self._carried.append(slot.undo)
        elif slot.future.done():
            return
        elif isinstance(reply, ResponseError):
            slot.future.set_exception(reply)
        else:
            slot.future.set_result(reply)

    async def _examine(self) -> None:
        """Learns which server this is and whether it is fit, again and again."""
        while True:
            if not self._suspended:
                try:
                    server = examine(await self._send(_INFO))
                    if not server.fault:
                        await self._send(_KNOWN)
                    self._believe(server)
                except ResponseError as fault:
                    self._distrust(fault_of(fault))
                except CannotCheckError:
                    log.debug("redis_examination_missed")
            await asyncio.sleep(EAGER_INTERVAL_S if self._incarnation is None else EXAMINE_INTERVAL_S)

    def _believe(self, server: Server) -> None:
        if server.fault:
            self._distrust(server.fault)
            return
        if server != self._server:
            log.info("redis_trusted", incarnation=server.incarnation)
        self._backoff.reset()
        self._server = server
        self._incarnation = server.incarnation.encode()
        carried = tuple(self._carried)
        self._carried.clear()
        for undo in carried:
            self._send_undo(undo)
        self._report()

    def _distrust(self, reason: str) -> None:
        if self._incarnation is not None or self._server is None or self._server.fault != reason:
            log.error("redis_not_trusted", reason=reason)
        self._server = Server(incarnation="", fault=reason)
        self._incarnation = None
        self._report()

    def _report(self) -> None:
        if self._readiness is not None:
            self._readiness.report(READINESS_CHECK, holds=self.is_trusted)

    def _require_trust(self) -> None:
        if self._incarnation is None:
            raise CannotCheckError("no trusted connection to Redis")
        if self._suspended:
            raise CannotCheckError("Redis does not answer")

    def _send(
        self, packed: bytes, *, undo: Callable[[], Call] | None = None, timeout_s: float | None = None
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        deadline_s = loop.time() + (self._timeout_s if timeout_s is None else timeout_s)
        self._enqueue(packed, _Slot(future, deadline_s, undo))
        return future

    def _enqueue(self, packed: bytes, slot: _Slot) -> None:
        self._slots.append(slot)
        if self._wire is not None:
            self._wire.send(packed)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(slot.deadline_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        """Only the oldest slot can be late first: all have the same timeout, and replies come in order."""
        self._timer = None
        if not self._slots:
            return
        loop, oldest = asyncio.get_running_loop(), self._slots[0]
        if oldest.deadline_s > loop.time():
            self._late = None
            self._timer = loop.call_at(oldest.deadline_s, self._look_at_deadline)
        elif self._late is not oldest:
            self._late = oldest
            self._timer = loop.call_later(_GRACE_S, self._look_at_deadline)
        elif self._suspended:
            self._give_up()
        else:
            self._suspend()

    def _suspend(self) -> None:
        """Fails what is in flight, takes back its admissions and waits for Redis to answer again."""
        log.warning("redis_suspended", in_flight=len(self._slots))
        self.counts.suspensions += 1
        self._suspended = True
        self._report()
        for undo in self._fail_slots("Redis did not answer in time"):
            self._send_undo(undo)
        # The late replies come first, so this is also the patience for all of them.
        deadline_s = asyncio.get_running_loop().time() + PROBE_TIMEOUT_S
        for slot in self._slots:
            slot.deadline_s = deadline_s
        self._send(_PING, timeout_s=PROBE_TIMEOUT_S).add_done_callback(self._resume)

    def _resume(self, answered: asyncio.Future[Any]) -> None:
        if answered.cancelled() or answered.exception() is not None:
            self._give_up()
            return
        log.info("redis_resumed")
        self._suspended = False
        self._report()

    def _give_up(self) -> None:
        if self._given_up is not None and not self._given_up.done():
            self._given_up.set_exception(CannotCheckError("Redis answered no PING"))

    def _lose(self) -> None:
        """The connection has gone: nothing is trusted, and unanswered undos wait for the next one."""
        self._incarnation = None
        self._server = None
        self._late = None
        self._report()
        self._carried.extend(self._fail_slots("the connection to Redis was lost"))
        for slot in self._slots:
            if slot.undo is not None:
                self._carried.append(slot.undo)
        self._slots.clear()
        self._wire = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail_slots(self, detail: str) -> list[Callable[[], Call]]:
        """Fails every waiting caller; gives the undos of what they had asked."""
        undos = []
        for slot in self._slots:
            if slot.future is None or slot.future.done():
                continue
            slot.future.set_exception(CannotCheckError(detail))
            slot.future.exception()  # a settlement or a cancelled caller may not be there to look
            if slot.undo is not None:
                undos.append(slot.undo)
                slot.undo = None
        return undos

    def _take_back(self, undo: Callable[[], Call] | None) -> None:
        if undo is None:
            return
        if self._given_up is None or self._given_up.done():
            self._carried.append(undo)
        else:
            self._send_undo(undo)

    def _send_undo(self, undo: Callable[[], Call]) -> None:
        self.counts.undos += 1
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        self._enqueue(undo().packed, _Slot(None, deadline_s, undo))

    def _translated(self, fault: RedisError) -> CannotCheckError:
        self.counts.errors += 1
        kind = refusal_name(fault)
        self._tell(kind)
        if isinstance(fault, ReadOnlyError):
            self._distrust("it is not a primary")
        return CannotCheckError(f"Redis refused: {kind}")

    def _tell(self, kind: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s.get(kind, -math.inf) > TELL_INTERVAL_S:
            self._told_s[kind] = now_s
            log.warning("redis_refused", reason=kind)

    def __repr__(self) -> str:
        state = "suspended" if self._suspended else "trusted" if self._incarnation else "untrusted"
        return f"Link({state}, in_flight={len(self._slots)})"
