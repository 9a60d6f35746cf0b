-- Takes back an admission whose answer nobody saw. It costs nothing and writes no usage event.
-- Written after `fenced`, `periods` and `window` in the same script.
--
-- A tombstone is written also where there is no lease: an admission that is still on its way then finds it and is
-- refused. Without the fence an open lease is only marked: a rebuild may be counting what it has reserved, and the
-- reaper gives that back when it expires.
--
-- KEYS   those of `settle`
-- ARGV   1 incarnation of the server, anything else where it is not known   2 lease id
--        3 time to live of the tombstone in ms
-- Reply  abandoned, marked, or settled when it had been settled before and nothing was written

local known = redis.call('HMGET', KEYS[10], 's', 'r', 'q', 'a', 'p', 'm')
local state = known[1]
if state == 'settled' or state == 'reaped' then
  return 'settled'
end
if state then
  if not is_fenced() then
    redis.call('HSET', KEYS[10], 'x', '1')
    return 'marked'
  end
  add_to_counters('reserved', opposite(known[2]), KEYS[8], KEYS[9], known[5], known[6])
  correct_in_window(KEYS[6], tonumber(known[4]), -tonumber(known[3]))
  correct_in_window(KEYS[7], tonumber(known[4]), -tonumber(known[3]))
end
close_lease(ARGV[2], ARGV[3], '')
return 'abandoned'
