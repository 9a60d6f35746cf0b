-- Admits one request, or nothing happens. Every check precedes the first write, because Redis does not take back what
-- a failing script has written. Idempotent by lease id.
--
-- Written after `standing`, `periods` and `window` in the same script.
--
-- KEYS   1–3 and the last one: those of `standing`
--        4 leases of the key   5 leases of the tenant   6 expiry index of the shard
--        7 window of the key   8 window of the tenant
--        9 name of the key's counters without their period   10 the same of the tenant's   11 the lease
-- ARGV   1–7 those of `standing`
--        8 limits, twelve doubles, −1 for none: of the key and of the tenant in turn: concurrent requests, requests/min,
--          tokens/min, tokens a day, a month, in total
--        9 time to live of the lease in ms   10 how long its record outlives that, in ms, for the reaper
--        11 lease id
--        12 what is asked for, four doubles: most tokens of the prompt, its estimate for tokens/min, most tokens to
--           produce (`num_predict`), how often they may be produced
--        13 usage event for the case that nobody settles
-- Reply  { decision, retry after ms, 1 when waiting does not help, requests and tokens in the last minute of the key
--          and of the tenant, ms since the latest request of the key and of the tenant, day, month, granted num_predict }
--        day, month and grant only with `admitted`; { decision } alone for those of `standing` and for
--        closed        this lease was settled or abandoned before, or belongs to somebody else
--        decisions: admitted, requests, tokens, concurrency, budget_day, budget_month, budget_total

-- Output below this is of no use to anybody: rather refuse.
local LEAST_OUTPUT = 16

local function text(number)
  return string.format('%.0f', number)
end

local function is_full(leases, limit, now_ms)
  -- Most sets are far from full, and counting all is cheaper than counting those that have not expired.
  return limit >= 0 and redis.call('ZCARD', leases) >= limit
    and redis.call('ZCOUNT', leases, '(' .. text(now_ms), '+inf') >= limit
end

-- What a counter says. One that says no number says nothing about what may still be used.
local function count(said)
  return said and (tonumber(said) or error({ err = 'ERR a counter is not a number' })) or 0
end

-- The six counters that have a limit, in the order in which they refuse: `name`, and tokens left before and after what
-- others have reserved.
local function budgets(limits, periods, prompt)
  local names, found = { 'budget_day', 'budget_month', 'budget_total' }, {}
  for period = 1, 3 do
    for scope = 1, 2 do
      local limit = limits[4 + 2 * period + scope]
      if limit >= 0 then
        local known = redis.call('HMGET', KEYS[8 + scope] .. periods[period], 'used', 'reserved')
        local left = limit - count(known[1]) - prompt
        found[#found + 1] = { name = names[period], left = left, free = left - count(known[2]) }
      end
    end
  end
  return found
end

-- What the budgets allow of `wanted`: the grant, or nothing, the budget that refuses, and whether it is exhausted.
local function grant_within(budgets, wanted, factor)
  local granted = wanted
  for _, budget in ipairs(budgets) do
    if budget.left < factor * math.min(wanted, LEAST_OUTPUT) then
      return nil, budget.name, true
    end
    granted = math.min(granted, math.floor(budget.left / factor))
  end
  for _, budget in ipairs(budgets) do
    -- What others have only reserved lowers no grant: they will need less, and then there is room.
    if budget.free < factor * granted then
      return nil, budget.name, false
    end
  end
  return granted
end

local now_ms = server_time_ms()
local refusal = standing(now_ms)
if refusal then
  return { refusal }
end

local lease_id = ARGV[11]
local limits = { struct.unpack('>dddddddddddd', ARGV[8]) }
local prompt, prompt_estimate, wanted, factor = struct.unpack('>dddd', ARGV[12])
local of_key, of_tenant = read_window(KEYS[7]), read_window(KEYS[8])
local window_ms = math.max(now_ms, of_key.last_ms, of_tenant.last_ms)
local since_key_ms, since_tenant_ms = window_ms - of_key.last_ms, window_ms - of_tenant.last_ms
advance_window(of_key, window_ms)
advance_window(of_tenant, window_ms)

local function reply(decision, retry_after_ms, is_final, day, month, granted)
  return {
    decision, math.ceil(retry_after_ms), is_final and 1 or 0, of_key.requests, of_key.tokens, of_tenant.requests,
    of_tenant.tokens, since_key_ms, since_tenant_ms, day, month, granted,
  }
end

local known = redis.call('HMGET', KEYS[11], 's', 'k', 'p', 'm', 'n', 'x')
if known[1] then
  local until_ms = tonumber(redis.call('ZSCORE', KEYS[6], lease_id) or 0)
  if known[1] == 'open' and known[2] == ARGV[2] and not known[6] and until_ms > now_ms then
    return reply('admitted', 0, false, known[3], known[4], tonumber(known[5]))
  end
  return { 'closed' }
end

local day, month = period_ids(now_ms)
local granted, budget, is_exhausted = grant_within(budgets(limits, { day, month, 'total' }, prompt), wanted, factor)

local wait_ms = math.max(
  wait_for_request_ms(of_key, limits[3], window_ms), wait_for_request_ms(of_tenant, limits[4], window_ms))
if wait_ms > 0 then
  return reply('requests', wait_ms, false)
end
local estimate = prompt_estimate + (granted or wanted)
wait_ms = math.max(
  wait_for_tokens_ms(of_key, limits[5], estimate, window_ms),
  wait_for_tokens_ms(of_tenant, limits[6], estimate, window_ms))
if wait_ms > 0 then
  return reply('tokens', wait_ms, false)
end
if is_full(KEYS[4], limits[1], now_ms) or is_full(KEYS[5], limits[2], now_ms) then
  -- The soonest expiry would be a lie: leases are renewed, and most are settled long before.
  return reply('concurrency', 1000, false)
end
if budget then
  return reply(budget, is_exhausted and ms_until_next(budget, now_ms, day) or 1000, is_exhausted)
end

local ttl_ms = tonumber(ARGV[9])
local until_ms = text(now_ms + ttl_ms)
local reserved = text(prompt + factor * granted)
add_to_counters('reserved', reserved, KEYS[9], KEYS[10], day, month)
for slot = 4, 6 do
  redis.call('ZADD', KEYS[slot], until_ms, lease_id)
end
redis.call('HSET', KEYS[11], 's', 'open', 'k', ARGV[2], 't', ARGV[3], 'p', day, 'm', month, 'r', reserved,
  'b', text(prompt), 'n', text(granted), 'q', text(estimate), 'a', text(window_ms), 'e', ARGV[13])
redis.call('PEXPIRE', KEYS[11], ttl_ms + tonumber(ARGV[10]))
count_in_window(of_key, estimate, window_ms)
count_in_window(of_tenant, estimate, window_ms)
since_key_ms, since_tenant_ms = 0, 0
return reply('admitted', 0, false, day, month, granted)
