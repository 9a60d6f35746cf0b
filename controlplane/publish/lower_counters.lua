#!lua
-- Lowers counters that have more than the ledger and all waiting events say; one that has moved meanwhile stays.
-- `counters` is included in front of this.
-- KEYS: fence, then counters of scopes. ARGV: the fence, then for each counter: which of KEYS it is in, its period (0 for
-- the total), what it was, and what it has to be.
-- Answers how many were lowered.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local lowered = 0
for at = 2, #ARGV, 4 do
  local key, period = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
  local was, must = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local counters = read_counters(redis.call('GET', key), key)
  local used = period == 0 and 1 or counter_at(counters, #ARGV[at + 1] == 6 and MONTHS or DAYS, period)
  if used and counters[used] == was and must < was then
    counters[used] = must
    redis.call('SET', key, written_counters(counters))
    lowered = lowered + 1
  end
end
return lowered
