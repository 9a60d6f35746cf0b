-- Takes back an admission whose answer nobody saw. It costs nothing and writes no usage event.
-- Uses `fenced`, `counters`, `leases` and `window`.
--
-- A tombstone is written also where there is no lease: an admission that is still on its way then finds it and is
-- refused. Without the fence an open lease is only marked: a rebuild may be counting what it has reserved, and the
-- reaper gives that back when it expires.
--
-- KEYS   those of `settle`
-- ARGV   1 incarnation of the server, anything else where it is not known   2 lease id
--        3 time to live of the tombstone in ms
-- Reply  abandoned, marked, or settled when it had been settled before and nothing was written

local function abandon(keys, arguments)
  local known = redis.call('MGET', keys[1], keys[10], keys[8], keys[9])
  local lease = known[2]
  local state = state_of(lease)
  if state == 'settled' or state == 'reaped' then
    return 'settled'
  end
  if state then
    if not is_valid(known[1], arguments[1]) then
      redis.call('SET', keys[10], marked(lease), 'KEEPTTL')
      return 'marked'
    end
    local reserved, estimate, admitted_ms, _, _, day, month = parts_of(lease)
    local of_key, of_tenant = read_counters(known[3], keys[8]), read_counters(known[4], keys[9])
    add_to_counters(of_key, day, month, 0, -reserved)
    add_to_counters(of_tenant, day, month, 0, -reserved)
    correct_in_window(of_key, keys[6], admitted_ms, -estimate)
    correct_in_window(of_tenant, keys[7], admitted_ms, -estimate)
    redis.call('MSET', keys[8], written_counters(of_key), keys[9], written_counters(of_tenant))
  end
  close_lease(keys, arguments[2], arguments[3], '-')
  return 'abandoned'
end

register('abandon', abandon)
