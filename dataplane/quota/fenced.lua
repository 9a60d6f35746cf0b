#!lua
-- Included by scripts that close leases; never run alone.
--
-- KEYS  1 fence   3 leases of the key   4 leases of the tenant   5 expiry index   10 the lease
-- ARGV  1 incarnation of the server that the caller talks to, `run id:replication id:`

local function is_fenced()
  local fence = redis.call('GET', KEYS[1])
  return fence and string.sub(fence, 1, #ARGV[1]) == ARGV[1]
end

-- Gives the slots back and leaves a tombstone, by which repetitions are known; it names the entry in the usage stream.
local function close_lease(lease_id, tombstone_ttl_ms, entry_id)
  for slot = 3, 5 do
    redis.call('ZREM', KEYS[slot], lease_id)
  end
  redis.call('DEL', KEYS[10])
  redis.call('HSET', KEYS[10], 's', 'settled', 'i', entry_id)
  redis.call('PEXPIRE', KEYS[10], tombstone_ttl_ms)
end
