-- Puts right what the reaper has charged for a lease that was settled late. Idempotent by lease id.
-- Written after `fenced` and `periods` in the same script.
--
-- KEYS   those of `settle`
-- ARGV   1 incarnation of the server   2 lease id   3 usage event of the correction   4 time to live of the tombstone in
--        ms   5 tokens to add, signed   6 day and 7 month of the lease
-- Reply  { decision, id of the event in the usage stream }, '' where it was not appended:
--        corrected   done
--        again       it had been corrected before; nothing was written
--        unfenced    nothing was written

if not is_fenced() then
  return { 'unfenced', '' }
end
local known = redis.call('HMGET', KEYS[10], 's', 'i')
if known[1] == 'settled' then
  return { 'again', known[2] or '' }
end
local entry_id = redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
if ARGV[5] ~= '0' then
  add_to_counters('used', ARGV[5], KEYS[8], KEYS[9], ARGV[6], ARGV[7])
end
close_lease(ARGV[2], ARGV[4], entry_id)
return { 'corrected', entry_id }
