"""The hashing pool: bounded, and as slow for an unknown key as for a wrong one."""

import asyncio

import argon2

from controlplane.errors import OverloadedError
from controlplane.hashing import Argon2Cost, HashingPool

CHEAP = Argon2Cost(time_cost=1, memory_kib=64, parallelism=1)


async def test_a_key_matches_its_own_hash_only():
    pool = HashingPool(CHEAP, threads=1, queue=8)
    hashed = await pool.hash("right")
    assert hashed.startswith("$argon2id$")
    assert await pool.verify(hashed, "right")
    assert not await pool.verify(hashed, "wrong")
    assert not await pool.verify("not a hash", "right")
    assert not await pool.verify(None, "right")
    await pool.close()


async def test_what_does_not_fit_is_refused_at_once_and_room_returns():
    pool = HashingPool(CHEAP, threads=1, queue=2)
    outcomes = await asyncio.gather(*(pool.hash("key") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, OverloadedError) for outcome in outcomes) == 7
    async with asyncio.timeout(5):
        while not pool._has_room():
            await asyncio.sleep(0)
    assert await pool.hash("key")
    await pool.close()


async def test_an_unknown_key_costs_what_a_wrong_one_costs():
    pool = HashingPool(CHEAP, threads=1, queue=8)
    # Argon2's work is decided by these alone; measuring it would judge the machine.
    assert argon2.extract_parameters(pool._decoy) == argon2.extract_parameters(await pool.hash("key"))
    assert pool._decoy != HashingPool(CHEAP, threads=1, queue=8)._decoy
    assert not await pool.verify(None, "key")
    await pool.close()
