-- Closes a lease: returns its slots, charges what was used instead of what was reserved, and appends the usage event.
-- Idempotent by lease id. Written after `fenced`, `periods` and `window` in the same script.
--
-- It needs the fence like everything else that writes: nothing may slip between what a rebuild has read and its stamp.
--
-- KEYS   1 fence   2 usage   3 leases of the key   4 leases of the tenant   5 expiry index
--        6 window of the key   7 window of the tenant   8 name of the key's counters without their period
--        9 the same of the tenant's   10 the lease
-- ARGV   1 incarnation of the server   2 lease id   3 usage event   4 time to live of the tombstone in ms
--        5 tokens charged   6 day and 7 month of the lease
-- Reply  { decision, id of the event in the usage stream }, '' where it was not appended:
--        settled    it was open and is closed now
--        again      it had been settled before; nothing was written
--        charged    nobody knows it (any more); it is charged all the same
--        reaped     it was charged as crashed; nothing was written: `correct` is what has to be sent
--        unfenced   nothing was written

if not is_fenced() then
  return { 'unfenced', '' }
end
local known = redis.call('HMGET', KEYS[10], 's', 'r', 'q', 'a', 'i')
local state = known[1]
if state == 'settled' then
  return { 'again', known[5] or '' }
end
if state == 'reaped' then
  return { 'reaped', '' }
end

local entry_id = redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
if ARGV[5] ~= '0' then
  add_to_counters('used', ARGV[5], KEYS[8], KEYS[9], ARGV[6], ARGV[7])
end
if state then
  add_to_counters('reserved', opposite(known[2]), KEYS[8], KEYS[9], ARGV[6], ARGV[7])
  local difference = tonumber(ARGV[5]) - tonumber(known[3])
  correct_in_window(KEYS[6], tonumber(known[4]), difference)
  correct_in_window(KEYS[7], tonumber(known[4]), difference)
end
close_lease(ARGV[2], ARGV[4], entry_id)
return { state and 'settled' or 'charged', entry_id }
