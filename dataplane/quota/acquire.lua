-- Admits one request: a slot of its key and one of its tenant, or nothing. Every check precedes the first write,
-- because Redis does not take back what a failing script has written. Idempotent by lease id.
--
-- KEYS   1–3 and the last one: those of `standing`, which comes before this in the same script
--        4 leases of the key   5 leases of the tenant   6 expiry index of the shard   7 the lease
-- ARGV   1–7 those of `standing`
--        8 concurrent requests of the key   9 of the tenant, -1 for no limit
--        10 time to live of the lease in ms   11 how long its record outlives that, in ms, for the reaper
--        12 lease id
-- Reply  { decision, day, retry_after_ms }; day and retry_after_ms are '' and 0 where they mean nothing
--        admitted      the lease is taken; `day` (20261120) is what the request will be charged to
--        concurrency   no slot is free
--        closed        this lease was settled or abandoned before, or belongs to somebody else
--        or a decision of `standing`

-- 719 468 days lie between 0000-03-01, from where years are counted so that the leap day comes last, and 1970-01-01.
local function day_of(now_ms)
  local days = math.floor(now_ms / 86400000) + 719468
  local era = math.floor(days / 146097)
  local of_era = days - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local shifted = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  return string.format('%04d%02d%02d', year + era * 400 + (month <= 2 and 1 or 0), month, day)
end

local function is_full(leases, limit, now_ms)
  return limit >= 0 and redis.call('ZCOUNT', leases, '(' .. string.format('%.0f', now_ms), '+inf') >= limit
end

local now_ms = server_time_ms()
local refusal = standing(now_ms)
if refusal then
  return { refusal, '', 0 }
end

local lease_id = ARGV[12]
local known = redis.call('HMGET', KEYS[7], 's', 'k', 'p')
if known[1] then
  local until_ms = tonumber(redis.call('ZSCORE', KEYS[6], lease_id) or 0)
  if known[1] == 'open' and known[2] == ARGV[2] and until_ms > now_ms then
    return { 'admitted', known[3], 0 }
  end
  return { 'closed', '', 0 }
end

if is_full(KEYS[4], tonumber(ARGV[8]), now_ms) or is_full(KEYS[5], tonumber(ARGV[9]), now_ms) then
  -- The soonest expiry would be a lie: leases are renewed, and most are settled long before.
  return { 'concurrency', '', 1000 }
end

local ttl_ms = tonumber(ARGV[10])
local until_ms = string.format('%.0f', now_ms + ttl_ms)
local day = day_of(now_ms)
for slot = 4, 5 do
  redis.call('ZREMRANGEBYSCORE', KEYS[slot], '-inf', string.format('%.0f', now_ms))
  redis.call('ZADD', KEYS[slot], until_ms, lease_id)
  redis.call('PEXPIRE', KEYS[slot], 2 * ttl_ms)
end
redis.call('ZADD', KEYS[6], until_ms, lease_id)
redis.call('HSET', KEYS[7], 's', 'open', 'k', ARGV[2], 't', ARGV[3], 'p', day, 'r', '0')
redis.call('PEXPIRE', KEYS[7], ttl_ms + tonumber(ARGV[11]))
return { 'admitted', day, 0 }
