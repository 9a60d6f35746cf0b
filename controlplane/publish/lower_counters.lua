#!lua
-- Lowers counters that have more than the ledger and all waiting events say; one that has moved meanwhile stays.
-- KEYS: fence, then counters. ARGV: the fence, then for each counter: what it was, and what it has to be.
-- Answers how many were lowered.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local lowered = 0
for index = 2, #KEYS do
  local at = 2 * (index - 1)
  if redis.call('HGET', KEYS[index], 'used') == ARGV[at] and tonumber(ARGV[at + 1]) < tonumber(ARGV[at]) then
    redis.call('HSET', KEYS[index], 'used', ARGV[at + 1])
    lowered = lowered + 1
  end
end
return lowered
