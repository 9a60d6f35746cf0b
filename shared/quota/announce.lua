-- Tells a rebuild what only this worker knows, because Redis may have lost it: events that the ledger does not have
-- yet, and leases of requests that are running. Written while there is no valid fence, under the token of the rebuild.
-- Uses `leases`.
--
-- KEYS   1 rebuild token   2 fence   3 usage   4 expiry index   5 announced
--        then for each event its lease, then for each lease: the lease, leases of its key, leases of its tenant
-- ARGV   1 token   2 incarnation of the server   3 worker id, '' while more is to come   4 time to live of a lease in ms
--        5 how long its record outlives that, in ms   6 time to live of a tombstone in ms   7 number of events
--        then for each event itself and '1' if it is a correction, then for each lease: lease id, key scope, tenant scope, day, month, tokens reserved, those of
--        the prompt among them, granted num_predict, usage event for the case that nobody settles
-- Reply  announced, or late when the rebuild is over or another's, and nothing was written

local function announce(keys, arguments)
  local fence = redis.call('GET', keys[2])
  if redis.call('GET', keys[1]) ~= arguments[1] or (fence and string.sub(fence, 1, #arguments[2]) == arguments[2]) then
    return 'late'
  end
  local events = tonumber(arguments[7])
  for event = 1, events do
    local raw, is_correction, lease = arguments[6 + 2 * event], arguments[7 + 2 * event] == '1', keys[5 + event]
    local state = state_of(redis.call('GET', lease))
    -- A lease that was charged as crashed is told so when its settlement comes again.
    if state ~= 'reaped' or is_correction then
      -- Twice in the stream is once in the ledger, and of an open lease the rebuild sees that it is over.
      local entry_id = redis.call('XADD', keys[3], '*', 'e', raw)
      if not state or state == 'reaped' then
        -- For the settlement that comes again because nobody has acknowledged it.
        redis.call('SET', lease, 'settled ' .. entry_id, 'PX', arguments[6])
      end
    end
  end
  local time = redis.call('TIME')
  local until_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(arguments[4]))
  local record_ttl_ms = tonumber(arguments[4]) + tonumber(arguments[5])
  local key = 6 + events
  for at = 8 + 2 * events, #arguments, 9 do
    -- It stands in no window: what was in the windows may be lost, and what is not may have forgotten it.
    local lease = open_lease(arguments[at + 5], 0, 0, arguments[at + 7], arguments[at + 6], arguments[at + 3], arguments[at + 4],
      arguments[at + 1], arguments[at + 2], arguments[at + 8])
    if redis.call('SET', keys[key], lease, 'NX', 'PX', record_ttl_ms) then
      for _, slots in ipairs({ keys[4], keys[key + 1], keys[key + 2] }) do
        redis.call('ZADD', slots, until_ms, arguments[at])
      end
    end
    key = key + 3
  end
  if arguments[3] ~= '' then
    redis.call('HSET', keys[5], arguments[3], arguments[1])
    redis.call('EXPIRE', keys[5], 60)
  end
  return 'announced'
end

register('announce', announce)
