"""Policies of models, in ``gateway.model_policies``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncpg

from controlplane.core import policies
from controlplane.errors import NotFoundError
from controlplane.store import engine, outbox
from shared import modelname
from shared.modelname import CanonicalName
from shared.records import ModelPolicyRecord

_SELECT = (
    "SELECT model, num_ctx, keep_alive, max_num_predict, image_tokens, allowed_options, alias"
    " FROM gateway.model_policies ORDER BY model"
)
_UPSERT = (
    "INSERT INTO gateway.model_policies"
    " (model, num_ctx, keep_alive, max_num_predict, image_tokens, allowed_options, alias)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (model) DO UPDATE SET num_ctx = EXCLUDED.num_ctx,"
    " keep_alive = EXCLUDED.keep_alive, max_num_predict = EXCLUDED.max_num_predict,"
    " image_tokens = EXCLUDED.image_tokens, allowed_options = EXCLUDED.allowed_options, alias = EXCLUDED.alias,"
    " updated_at = now()"
)
_DELETE = "DELETE FROM gateway.model_policies WHERE model = $1 RETURNING model"

type Change = Callable[[Sequence[ModelPolicyRecord]], ModelPolicyRecord]


class PostgresPolicies:
    """Model policies. Every change is also a row of the outbox. Raises ``StoreUnavailableError``."""

    async def every(self) -> Sequence[ModelPolicyRecord]:
        """All of them, by model."""
        async with engine.connection() as connection:
            return await _every(connection)

    async def change(self, change: Change) -> ModelPolicyRecord:
        """Locks all policies and commits the one that ``change`` makes of them; one that decides nothing is removed.

        Raises whatever ``change`` raises.
        """
        async with engine.transaction() as connection:
            # Names must be free among all of them, so that changes come one after the other; readers do not wait.
            await connection.execute("LOCK TABLE gateway.model_policies IN SHARE ROW EXCLUSIVE MODE")
            policy = change(await _every(connection))
            if policies.is_empty(policy):
                await connection.execute(_DELETE, policy.model)
            else:
                await connection.execute(_UPSERT, *_values(policy))
            await outbox.enqueue(connection, outbox.OutboxKind.CONFIG)
        return policy

    async def remove(self, model: CanonicalName) -> None:
        """Commits the end of a policy. Raises ``NotFoundError``."""
        async with engine.transaction() as connection:
            if await connection.fetchval(_DELETE, model) is None:
                raise NotFoundError(f"there is no policy of {modelname.display(model)}")
            await outbox.enqueue(connection, outbox.OutboxKind.CONFIG)

    def __repr__(self) -> str:
        return "PostgresPolicies()"


async def _every(connection: engine.Connection) -> list[ModelPolicyRecord]:
    return [_policy(row) for row in await connection.fetch(_SELECT)]


def _policy(row: asyncpg.Record) -> ModelPolicyRecord:
    options, alias = row["allowed_options"], row["alias"]
    return ModelPolicyRecord(
        model=CanonicalName(row["model"]),
        num_ctx=row["num_ctx"],
        keep_alive=row["keep_alive"],
        max_num_predict=row["max_num_predict"],
        image_tokens=row["image_tokens"],
        allowed_options=None if options is None else tuple(options),
        alias=None if alias is None else CanonicalName(alias),
    )


def _values(policy: ModelPolicyRecord) -> list[object]:
    options = policy.allowed_options
    return [
        policy.model,
        policy.num_ctx,
        policy.keep_alive,
        policy.max_num_predict,
        policy.image_tokens,
        None if options is None else list(options),
        policy.alias,
    ]
