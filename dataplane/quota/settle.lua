#!lua
-- Closes a lease: returns its slots and appends the usage event. Idempotent by lease id.
--
-- It needs the fence like everything else that writes: nothing may slip between what a rebuild has read and its stamp.
--
-- KEYS   1 fence   2 usage   3 leases of the key   4 leases of the tenant   5 expiry index   6 the lease
-- ARGV   1 incarnation of the server   2 lease id   3 usage event   4 time to live of the tombstone in ms
-- Reply  settled    it was open and is closed now
--        again      it had been settled before; nothing was written
--        charged    nobody knows it (any more); the event is appended all the same
--        unfenced   nothing was written

local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return 'unfenced'
end
local state = redis.call('HGET', KEYS[6], 's')
if state == 'settled' then
  return 'again'
end

redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('DEL', KEYS[6])
redis.call('HSET', KEYS[6], 's', 'settled')
redis.call('PEXPIRE', KEYS[6], ARGV[4])
return state and 'settled' or 'charged'
