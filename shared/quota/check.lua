-- The checks of `acquire` that need no lease: for listings and refusals. Writes nothing.
--
-- KEYS, ARGV  those of `standing`
-- Reply       `allowed` or a decision of `standing`

local function check(keys, arguments)
  local known = redis.call('MGET', keys[1], keys[4])
  return standing(keys, arguments, known[1], known[2], server_time_ms()) or 'allowed'
end

register('check', check)
