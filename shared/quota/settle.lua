-- Closes a lease: returns its slots, charges what was used instead of what was reserved, and appends the usage event.
-- Idempotent by lease id. Uses `fenced`, `counters`, `leases` and `window`.
--
-- It needs the fence like everything else that writes: nothing may slip between what a rebuild has read and its stamp.
--
-- KEYS   1 fence   2 usage   3 leases of the key   4 leases of the tenant   5 expiry index
--        6 window of the key   7 window of the tenant   8 counters of the key   9 counters of the tenant   10 the lease
-- ARGV   1 incarnation of the server   2 lease id   3 usage event   4 time to live of the tombstone in ms
--        5 three doubles: tokens charged, day and month of the lease
-- Reply  decision, a blank, and the id of the event in the usage stream; alone where it was not appended:
--        settled    it was open and is closed now
--        again      it had been settled before; nothing was written
--        charged    nobody knows it (any more); it is charged all the same
--        reaped     it was charged as crashed; nothing was written: `correct` is what has to be sent
--        unfenced   nothing was written

local function settle(keys, arguments)
  local call = redis.call
  local key_counters, tenant_counters = keys[8], keys[9]
  local known = call('MGET', keys[1], keys[10], key_counters, tenant_counters)
  if not is_valid(known[1], arguments[1]) then
    return 'unfenced'
  end
  local lease = known[2]
  local state = state_of(lease)
  if state == 'settled' then
    return 'again ' .. entry_of(lease)
  end
  if state == 'reaped' then
    return 'reaped'
  end

  local of_key, of_tenant = read_counters(known[3], key_counters), read_counters(known[4], tenant_counters)
  local charged, day, month = struct.unpack('<ddd', arguments[5])
  local reserved, estimate, admitted_ms = 0, charged, 0
  if state then
    reserved, estimate, admitted_ms = reserved_by(lease)
  end
  add_to_counters(of_key, day, month, charged, -reserved)
  add_to_counters(of_tenant, day, month, charged, -reserved)
  local entry_id = call('XADD', keys[2], '*', 'e', arguments[3])
  correct_in_window(of_key, keys[6], admitted_ms, charged - estimate)
  correct_in_window(of_tenant, keys[7], admitted_ms, charged - estimate)
  call('MSET', key_counters, written_counters(of_key), tenant_counters, written_counters(of_tenant))
  close_lease(keys, arguments[2], arguments[4], entry_id)
  return (state and 'settled ' or 'charged ') .. entry_id
end

register('settle', settle)
