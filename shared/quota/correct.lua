-- Puts right what the reaper has charged for a lease that was settled late. Idempotent by lease id.
-- Uses `fenced`, `counters` and `leases`.
--
-- KEYS   those of `settle`
-- ARGV   1 incarnation of the server   2 lease id   3 usage event of the correction   4 time to live of the tombstone in
--        ms   5 three doubles: tokens to add, signed, day and month of the lease
-- Reply  decision, a blank, and the id of the event in the usage stream; alone where it was not appended:
--        corrected   done
--        again       it had been corrected before; nothing was written
--        unfenced    nothing was written

local function correct(keys, arguments)
  local known = redis.call('MGET', keys[1], keys[10], keys[8], keys[9])
  if not is_valid(known[1], arguments[1]) then
    return 'unfenced'
  end
  if state_of(known[2]) == 'settled' then
    return 'again ' .. entry_of(known[2])
  end
  local of_key, of_tenant = read_counters(known[3], keys[8]), read_counters(known[4], keys[9])
  local tokens, day, month = struct.unpack('<ddd', arguments[5])
  add_to_counters(of_key, day, month, tokens, 0)
  add_to_counters(of_tenant, day, month, tokens, 0)
  local entry_id = redis.call('XADD', keys[2], '*', 'e', arguments[3])
  redis.call('MSET', keys[8], written_counters(of_key), keys[9], written_counters(of_tenant))
  close_lease(keys, arguments[2], arguments[4], entry_id)
  return 'corrected ' .. entry_id
end

register('correct', correct)
