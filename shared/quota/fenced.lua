-- For the scripts that close leases.
--
-- KEYS  1 fence   3 leases of the key   4 leases of the tenant   5 expiry index   8 counters of the key   9 those of the
--       tenant   10 the lease
-- ARGV  1 incarnation of the server that the caller talks to, `layout:run id:replication id:`

local function is_valid(fence, incarnation)
  return fence and string.sub(fence, 1, #incarnation) == incarnation
end

-- Gives the slots back and leaves a tombstone, by which repetitions are known; it names the entry in the usage stream.
local function close_lease(keys, lease_id, tombstone_ttl_ms, entry_id)
  redis.call('ZREM', keys[3], lease_id)
  redis.call('ZREM', keys[4], lease_id)
  redis.call('ZREM', keys[5], lease_id)
  redis.call('SET', keys[10], 'settled ' .. entry_id, 'PX', tombstone_ttl_ms)
end
