-- The checks of `acquire` that need no lease: for listings and refusals. Writes nothing.
--
-- KEYS, ARGV  those of `standing`, which comes before this in the same script
-- Reply       `allowed` or a decision of `standing`

local known = redis.call('MGET', KEYS[1], KEYS[4])
return standing(known[1], known[2], server_time_ms()) or 'allowed'
