-- Admits one request, or nothing happens. Every check precedes the first write, because Redis does not take back what
-- a failing script has written. Idempotent by lease id.
--
-- Uses `standing`, `counters`, `leases`, `periods` and `window`.
--
-- KEYS   1–3 and the last one: those of `standing`
--        4 leases of the key   5 leases of the tenant   6 expiry index of the shard
--        7 window of the key   8 window of the tenant
--        9 counters of the key   10 counters of the tenant   11 the lease
-- ARGV   1–4 those of `standing`; behind its four doubles 18 more: limits, −1 for none, of the key and of the tenant in
--          turn: concurrent requests, requests/min, tokens/min, tokens a day, a month, in total; time to live of the lease
--          in ms; how long its record outlives that, in ms, for the reaper; what is asked for: most tokens of the prompt,
--          its estimate for tokens/min, most tokens to produce (`num_predict`), how often they may be produced
--        5 lease id
--        6 usage event for the case that nobody settles
-- Reply  decision, a blank, and eleven little-endian integers of 64 bits: retry after ms, 1 when waiting does not
--          help, requests and tokens in the last minute of the key and of the tenant, ms since the latest request of the
--          key and of the tenant, day, month, granted num_predict; these three are 0 unless `admitted`
--        The decision alone for those of `standing` and for
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
  local granted, least = wanted, factor * (wanted < LEAST_OUTPUT and wanted or LEAST_OUTPUT)
  local least_free = factor * wanted
  for at = 7, 12 do
    local limit = limits[at]
    if limit >= 0 then
      local counters, used = at % 2 == 1 and of_key or of_tenant, places[at - 6]
      local left = limit - counters[used] - prompt
      -- Also true of what is no number.
      if not (left >= least) then
        return nil, budget_name(at), true
      end
      if left < factor * granted then
        granted = (left - left % factor) / factor
      end
      local free = left - counters[used + 1]
      if not (free >= least_free) then
        if free ~= free then
          return nil, budget_name(at), false
        end
        least_free = free
      end
    end
  end
  if least_free >= factor * granted then
    return granted
  end
  for at = 7, 12 do
    -- What others have only reserved lowers no grant: they will need less, and then there is room.
    local counters, used = at % 2 == 1 and of_key or of_tenant, places[at - 6]
    if limits[at] >= 0 and limits[at] - counters[used] - prompt - counters[used + 1] < factor * granted then
      return nil, budget_name(at), false
    end
  end
end

local function acquire(keys, arguments)
  local call = redis.call
  local now_ms = server_time_ms()
  local key_counters, tenant_counters, lease_key = keys[9], keys[10], keys[11]
  local known = call('MGET', keys[1], keys[12], lease_key, key_counters, tenant_counters)
  local refusal = standing(keys, arguments, known[1], known[2], now_ms)
  if refusal then
    return refusal
  end

  local lease_id, lease = arguments[5], known[3]
  local limits = { struct.unpack('<dddddddddddddddddd', arguments[4], 33) }
  local prompt, wanted, factor = limits[15], limits[17], limits[18]
  local of_key, of_tenant = read_counters(known[4], key_counters), read_counters(known[5], tenant_counters)
  of_key[WINDOW_KEY], of_tenant[WINDOW_KEY] = keys[7], keys[8]
  local key_last_ms, tenant_last_ms, window_ms = of_key[LAST_MS], of_tenant[LAST_MS], now_ms
  if key_last_ms > window_ms then
    window_ms = key_last_ms
  end
  if tenant_last_ms > window_ms then
    window_ms = tenant_last_ms
  end
  advance_window(of_key, window_ms)
  advance_window(of_tenant, window_ms)

  local function reply(decision, retry_after_ms, is_final, day, month, granted)
    return decision .. ' ' .. struct.pack('<lllllllllll', math.ceil(retry_after_ms), is_final, of_key[REQUESTS],
      of_key[TOKENS], of_tenant[REQUESTS], of_tenant[TOKENS], window_ms - key_last_ms, window_ms - tenant_last_ms, day,
      month, granted)
  end

  if lease then
    if state_of(lease) == 'open' then
      local _, _, _, granted, _, day, month, mark, key = parts_of(lease)
      local until_ms = tonumber(redis.call('ZSCORE', keys[6], lease_id) or 0)
      if key == arguments[2] and mark == '-' and until_ms > now_ms then
        return reply('admitted', 0, 0, day, month, granted)
      end
    end
    return 'closed'
  end

  local day, month = period_ids(now_ms)
  local key_day, tenant_day = counter_at(of_key, DAYS, day, true), counter_at(of_tenant, DAYS, day, true)
  local key_month, tenant_month = counter_at(of_key, MONTHS, month, true), counter_at(of_tenant, MONTHS, month, true)
  local granted, budget, is_exhausted = grant_within(
    limits, of_key, of_tenant, { key_day, tenant_day, key_month, tenant_month, TOTAL, TOTAL }, prompt, wanted, factor)

  local of_key_ms = wait_for_request_ms(of_key, limits[3], window_ms)
  local of_tenant_ms = wait_for_request_ms(of_tenant, limits[4], window_ms)
  if of_key_ms > 0 or of_tenant_ms > 0 then
    return reply('requests', math.max(of_key_ms, of_tenant_ms), 0, 0, 0, 0)
  end
  local estimate = limits[16] + (granted or wanted)
  of_key_ms = wait_for_tokens_ms(of_key, limits[5], estimate, window_ms)
  of_tenant_ms = wait_for_tokens_ms(of_tenant, limits[6], estimate, window_ms)
  if of_key_ms > 0 or of_tenant_ms > 0 then
    return reply('tokens', math.max(of_key_ms, of_tenant_ms), 0, 0, 0, 0)
  end
  if is_full(keys[4], limits[1], now_ms) or is_full(keys[5], limits[2], now_ms) then
    -- The soonest expiry would be a lie: leases are renewed, and most are settled long before.
    return reply('concurrency', 1000, 0, 0, 0, 0)
  end
  if budget then
    return reply(budget, is_exhausted and ms_until_next(budget, now_ms, day) or 1000, is_exhausted and 1 or 0, 0, 0, 0)
  end

  -- Here counters may turn out not to be countable: nothing is written yet.
  local reserved = prompt + factor * granted
  add_at(of_key, key_day, 0, reserved)
  add_at(of_key, key_month, 0, reserved)
  add_at(of_key, TOTAL, 0, reserved)
  add_at(of_tenant, tenant_day, 0, reserved)
  add_at(of_tenant, tenant_month, 0, reserved)
  add_at(of_tenant, TOTAL, 0, reserved)

  count_in_window(of_key, limits[3], estimate, window_ms)
  count_in_window(of_tenant, limits[4], estimate, window_ms)
  call('MSET', key_counters, written_counters(of_key), tenant_counters, written_counters(of_tenant))
  local until_ms = now_ms + limits[13]
  call('ZADD', keys[4], until_ms, lease_id)
  call('ZADD', keys[5], until_ms, lease_id)
  call('ZADD', keys[6], until_ms, lease_id)
  call('SET', lease_key,
    open_lease(reserved, estimate, window_ms, granted, prompt, day, month, arguments[2], arguments[3], arguments[6]),
    'PX', limits[13] + limits[14])
  key_last_ms, tenant_last_ms = window_ms, window_ms
  return reply('admitted', 0, 0, day, month, granted)
end

register('acquire', acquire)
