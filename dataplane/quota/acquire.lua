-- Admits one request, or nothing happens. Every check precedes the first write, because Redis does not take back what
-- a failing script has written. Idempotent by lease id.
--
-- Written after `standing`, `counters`, `leases`, `periods` and `window` in the same script.
--
-- KEYS   1–3 and the last one: those of `standing`
--        4 leases of the key   5 leases of the tenant   6 expiry index of the shard
--        7 window of the key   8 window of the tenant
--        9 counters of the key   10 counters of the tenant   11 the lease
-- ARGV   1–4 those of `standing`
--        5 fourteen doubles: limits, −1 for none, of the key and of the tenant in turn: concurrent requests,
--          requests/min, tokens/min, tokens a day, a month, in total; time to live of the lease in ms; how long its record
--          outlives that, in ms, for the reaper
--        6 lease id
--        7 what is asked for, four doubles: most tokens of the prompt, its estimate for tokens/min, most tokens to
--          produce (`num_predict`), how often they may be produced
--        8 usage event for the case that nobody settles
-- Reply  { decision, retry after ms, 1 when waiting does not help, requests and tokens in the last minute of the key
--          and of the tenant, ms since the latest request of the key and of the tenant, day, month, granted num_predict }
--        day, month and grant only with `admitted`; { decision } alone for those of `standing` and for
--        closed        this lease was settled or abandoned before, or belongs to somebody else
--        decisions: admitted, requests, tokens, concurrency, budget_day, budget_month, budget_total

-- Output below this is of no use to anybody: rather refuse.
local LEAST_OUTPUT = 16

local function is_full(leases, limit, now_ms)
  -- Most sets are far from full, and counting all is cheaper than counting those that have not expired.
  return limit >= 0 and redis.call('ZCARD', leases) >= limit
    and redis.call('ZCOUNT', leases, string.format('(%d', now_ms), '+inf') >= limit
end

local function budget_name(at)
  return at <= 8 and 'budget_day' or at <= 10 and 'budget_month' or 'budget_total'
end

-- What the budgets allow of `wanted`: the grant, or nothing, the budget that refuses, and whether it is exhausted.
-- They refuse in the order of `limits`, of which they are 7 to 12; `places` are those of their counters.
local function grant_within(limits, of_key, of_tenant, places, prompt, wanted, factor)
  local granted, least, free = wanted, factor * math.min(wanted, LEAST_OUTPUT), {}
  for at = 7, 12 do
    if limits[at] >= 0 then
      local counters, used = at % 2 == 1 and of_key or of_tenant, places[at - 6]
      local left = limits[at] - counters[used] - prompt
      -- Also true of what is no number.
      if not (left >= least) then
        return nil, budget_name(at), true
      end
      granted, free[at] = math.min(granted, math.floor(left / factor)), left - counters[used + 1]
    end
  end
  for at = 7, 12 do
    -- What others have only reserved lowers no grant: they will need less, and then there is room.
    if free[at] and not (free[at] >= factor * granted) then
      return nil, budget_name(at), false
    end
  end
  return granted
end

local now_ms = server_time_ms()
local known = redis.call('MGET', KEYS[1], KEYS[12], KEYS[11], KEYS[9], KEYS[10])
local refusal = standing(known[1], known[2], now_ms)
if refusal then
  return { refusal }
end

local lease_id, lease = ARGV[6], known[3]
local limits = { struct.unpack('>dddddddddddddd', ARGV[5]) }
local prompt, prompt_estimate, wanted, factor = struct.unpack('>dddd', ARGV[7])
local of_key, of_tenant = read_counters(known[4], KEYS[9]), read_counters(known[5], KEYS[10])
of_key[WINDOW_KEY], of_tenant[WINDOW_KEY] = KEYS[7], KEYS[8]
local window_ms = math.max(now_ms, of_key[LAST_MS], of_tenant[LAST_MS])
local since_key_ms, since_tenant_ms = window_ms - of_key[LAST_MS], window_ms - of_tenant[LAST_MS]
advance_window(of_key, window_ms)
advance_window(of_tenant, window_ms)

local function reply(decision, retry_after_ms, is_final, day, month, granted)
  return {
    decision, math.ceil(retry_after_ms), is_final and 1 or 0, of_key[REQUESTS], of_key[TOKENS], of_tenant[REQUESTS],
    of_tenant[TOKENS], since_key_ms, since_tenant_ms, day, month, granted,
  }
end

if lease then
  if state_of(lease) == 'open' then
    local _, _, _, granted, _, day, month, mark, key = parts_of(lease)
    local until_ms = tonumber(redis.call('ZSCORE', KEYS[6], lease_id) or 0)
    if key == ARGV[2] and mark == '-' and until_ms > now_ms then
      return reply('admitted', 0, false, day, month, granted)
    end
  end
  return { 'closed' }
end

local day, month = period_ids(now_ms)
local key_day, tenant_day = counter_at(of_key, DAYS, day, true), counter_at(of_tenant, DAYS, day, true)
local key_month, tenant_month = counter_at(of_key, MONTHS, month, true), counter_at(of_tenant, MONTHS, month, true)
local granted, budget, is_exhausted = grant_within(
  limits, of_key, of_tenant, { key_day, tenant_day, key_month, tenant_month, TOTAL, TOTAL }, prompt, wanted, factor)

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

-- Here counters may turn out not to be countable: nothing is written yet.
local reserved = prompt + factor * granted
add_at(of_key, key_day, 0, reserved)
add_at(of_key, key_month, 0, reserved)
add_at(of_key, TOTAL, 0, reserved)
add_at(of_tenant, tenant_day, 0, reserved)
add_at(of_tenant, tenant_month, 0, reserved)
add_at(of_tenant, TOTAL, 0, reserved)

count_in_window(of_key, estimate, window_ms)
count_in_window(of_tenant, estimate, window_ms)
redis.call('MSET', KEYS[9], written_counters(of_key), KEYS[10], written_counters(of_tenant))
local until_ms = string.format('%d', now_ms + limits[13])
redis.call('ZADD', KEYS[4], until_ms, lease_id)
redis.call('ZADD', KEYS[5], until_ms, lease_id)
redis.call('ZADD', KEYS[6], until_ms, lease_id)
redis.call('SET', KEYS[11],
  open_lease(reserved, estimate, window_ms, granted, prompt, day, month, ARGV[2], ARGV[3], ARGV[8]),
  'PX', limits[13] + limits[14])
since_key_ms, since_tenant_ms = 0, 0
return reply('admitted', 0, false, day, month, granted)
