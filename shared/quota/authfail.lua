-- Counts a failed authentication of an address block in its current window.
--
-- KEYS   1 failures of the block
-- ARGV   1 length of a window in ms
-- Reply  { failures in this window, ms until it ends }

local function authfail(keys, arguments)
  local failures = redis.call('INCR', keys[1])
  if failures == 1 then
    redis.call('PEXPIRE', keys[1], arguments[1])
  end
  return { failures, redis.call('PTTL', keys[1]) }
end

register('authfail', authfail)
