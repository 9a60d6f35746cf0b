#!lua
-- Takes back an admission whose answer nobody saw. It costs nothing and writes no usage event.
--
-- The tombstone is written also where there is no lease: an admission that is still on its way then finds it and is
-- refused. It needs no fence, because it adds nothing that a rebuild would count.
--
-- KEYS   1 leases of the key   2 leases of the tenant   3 expiry index   4 the lease
-- ARGV   1 lease id   2 time to live of the tombstone in ms
-- Reply  abandoned, or settled when it had been settled before and nothing was written

if redis.call('HGET', KEYS[4], 's') == 'settled' then
  return 'settled'
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 's', 'settled')
redis.call('PEXPIRE', KEYS[4], ARGV[2])
return 'abandoned'
