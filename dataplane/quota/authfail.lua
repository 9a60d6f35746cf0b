-- Counts a failed authentication of an address block in its current window.
--
-- KEYS   1 failures of the block
-- ARGV   1 length of a window in ms
-- Reply  { failures in this window, ms until it ends }

local failures = redis.call('INCR', KEYS[1])
if failures == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return { failures, redis.call('PTTL', KEYS[1]) }
