-- Puts right what the reaper has charged for a lease that was settled late. Idempotent by lease id.
-- Written after `fenced` and `periods` in the same script.
--
-- KEYS   those of `settle`
-- ARGV   1 incarnation of the server   2 lease id   3 usage event of the correction   4 time to live of the tombstone in
--        ms   5 tokens to add, signed   6 day and 7 month of the lease
-- Reply  corrected   done
--        again       it had been corrected before; nothing was written
--        unfenced    nothing was written

if not is_fenced() then
  return 'unfenced'
end
if redis.call('HGET', KEYS[10], 's') == 'settled' then
  return 'again'
end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
if ARGV[5] ~= '0' then
  add_to_counters('used', ARGV[5], KEYS[8], KEYS[9], ARGV[6], ARGV[7])
end
close_lease(ARGV[2], ARGV[4])
return 'corrected'
