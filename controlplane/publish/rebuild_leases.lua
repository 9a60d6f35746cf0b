#!lua
-- Puts right the open leases that a server has from before its rebuild. Keeps the token alive meanwhile.
-- KEYS: rebuild token, fence, expiry index, then for each lease: the lease, leases of its key, leases of its tenant.
-- ARGV: token, incarnation, time to live of the token in ms, time to live of a kept lease in ms, time to live of a
--   tombstone in ms, then for each lease: its id, and `keep` (it may still be in use: a whole life from now on),
--   `close` (the ledger has it: it is settled) or `forget` (there is nothing behind it).
-- Answers how many leases there were, -1 when the token is lost or somebody else has stamped the fence.
local fence = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] or (fence and string.sub(fence, 1, #ARGV[2]) == ARGV[2]) then
  return -1
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local time = redis.call('TIME')
local until_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4]))
local count = 0
for at = 6, #ARGV, 2 do
  local lease_id, fate, key = ARGV[at], ARGV[at + 1], 4 + 3 * count
  count = count + 1
  if fate == 'keep' then
    redis.call('ZADD', KEYS[3], until_ms, lease_id)
    for slot = key + 1, key + 2 do
      redis.call('ZADD', KEYS[slot], until_ms, lease_id)
      redis.call('PEXPIRE', KEYS[slot], 2 * tonumber(ARGV[4]))
    end
  else
    redis.call('ZREM', KEYS[3], lease_id)
    redis.call('ZREM', KEYS[key + 1], lease_id)
    redis.call('ZREM', KEYS[key + 2], lease_id)
    if fate == 'close' then
      redis.call('SET', KEYS[key], 'settled -', 'PX', ARGV[5])
    end
  end
end
return count
