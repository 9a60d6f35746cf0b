#!lua
-- Writes counters as a rebuild has found them, in place of whatever was there. Keeps the token alive meanwhile.
-- KEYS: rebuild token, fence, then counters. ARGV: token, incarnation, time to live of the token in ms, then for each
-- counter: used ('' removes it), reserved, time to live in ms (0 for ever).
-- Answers how many counters there were, -1 when the token is lost or somebody else has stamped the fence.
local fence = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] or (fence and string.sub(fence, 1, #ARGV[2]) == ARGV[2]) then
  return -1
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for index = 3, #KEYS do
  local at = 4 + 3 * (index - 3)
  redis.call('DEL', KEYS[index])
  if ARGV[at] ~= '' then
    redis.call('HSET', KEYS[index], 'used', ARGV[at], 'reserved', ARGV[at + 1])
    if ARGV[at + 2] ~= '0' then
      redis.call('PEXPIRE', KEYS[index], ARGV[at + 2])
    end
  end
end
return #KEYS - 2
