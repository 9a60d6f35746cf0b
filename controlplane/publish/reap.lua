#!lua flags=allow-oom
-- Closes a lease that nobody has renewed: its worker is dead. Charges all that it had reserved, or nothing where nobody
-- ever saw its admission. Idempotent; a settlement that comes later finds what was charged. `counters` and `leases` are
-- included in front of this.
--
-- KEYS   1 fence   2 usage   3 expiry index   4 the lease   5 leases of the key   6 leases of the tenant
--        7 counters of the key   8 counters of the tenant
-- ARGV   1 incarnation of the server, `layout:run id:replication id:`   2 lease id   3 usage event
--        4 time to live in ms of the tombstone of an abandoned lease   5 of a charged one
-- Reply  reaped     charged as crashed
--        released   it had been abandoned: nothing is charged
--        gone       it is not open any more; what was left of it is removed
--        renewed    it is not over   unfenced   nothing may be written now

local known = redis.call('MGET', KEYS[1], KEYS[4], KEYS[7], KEYS[8])
local fence, lease = known[1], known[2]
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return 'unfenced'
end
local time = redis.call('TIME')
local until_ms = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0)
if until_ms > time[1] * 1000 + math.floor(time[2] / 1000) then
  return 'renewed'
end

local is_open = state_of(lease) == 'open'
local is_abandoned, of_key, of_tenant = false, nil, nil
if is_open then
  local reserved, _, _, _, _, day, month, mark = parts_of(lease)
  is_abandoned = mark == 'x'
  of_key, of_tenant = read_counters(known[3], KEYS[7]), read_counters(known[4], KEYS[8])
  for _, counters in ipairs({ of_key, of_tenant }) do
    add_to_counters(counters, day, month, is_abandoned and 0 or reserved, -reserved)
  end
end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[6], ARGV[2])
if not is_open then
  return 'gone'
end
redis.call('MSET', KEYS[7], written_counters(of_key), KEYS[8], written_counters(of_tenant))
if is_abandoned then
  redis.call('SET', KEYS[4], 'settled -', 'PX', ARGV[4])
  return 'released'
end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
redis.call('SET', KEYS[4], 'reaped', 'PX', ARGV[5])
return 'reaped'
