#!lua flags=allow-oom
-- Closes a lease that nobody has renewed: its worker is dead. Charges all that it had reserved, or nothing where nobody
-- ever saw its admission. Idempotent; a settlement that comes later finds what was charged.
--
-- KEYS   1 fence   2 usage   3 expiry index   4 the lease   5 leases of the key   6 leases of the tenant
--        7–12 counters of the key and of the tenant for the lease's day, its month and in total
-- ARGV   1 incarnation of the server, `run id:replication id:`   2 lease id   3 usage event
--        4 time to live in ms of the tombstone of an abandoned lease   5 of a charged one
-- Reply  reaped     charged as crashed
--        released   it had been abandoned: nothing is charged
--        gone       it is not open any more; what was left of it is removed
--        renewed    it is not over   unfenced   nothing may be written now

local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return 'unfenced'
end
local time = redis.call('TIME')
local until_ms = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0)
if until_ms > time[1] * 1000 + math.floor(time[2] / 1000) then
  return 'renewed'
end
local known = redis.call('HMGET', KEYS[4], 's', 'r', 'x')
for slots = 3, 6 do
  if slots ~= 4 then
    redis.call('ZREM', KEYS[slots], ARGV[2])
  end
end
if known[1] ~= 'open' then
  return 'gone'
end
local negated = known[2] == '0' and '0' or '-' .. known[2]
for counter = 7, #KEYS do
  redis.call('HINCRBY', KEYS[counter], 'reserved', negated)
  if not known[3] then
    redis.call('HINCRBY', KEYS[counter], 'used', known[2])
  end
end
if known[3] then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[4], 's', 'settled', 'i', '')
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
  return 'released'
end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
redis.call('HSET', KEYS[4], 's', 'reaped')
redis.call('HDEL', KEYS[4], 'e')
redis.call('PEXPIRE', KEYS[4], ARGV[5])
return 'reaped'
