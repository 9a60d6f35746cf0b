#!lua flags=allow-oom
-- Raises entries of `live` to higher versions; a lower or equal one changes nothing, so no order of writers matters.
-- KEYS: live, rebuild token, fence. ARGV: token ('' outside a rebuild), incarnation, then scope and version in turn.
-- Answers how many entries changed, -1 when the rebuild has lost its token or somebody else has stamped the fence.
if ARGV[1] ~= '' then
  local fence = redis.call('GET', KEYS[3])
  if redis.call('GET', KEYS[2]) ~= ARGV[1] or (fence and string.sub(fence, 1, #ARGV[2]) == ARGV[2]) then
    return -1
  end
end
local changed = 0
for index = 3, #ARGV, 2 do
  local stored = tonumber(redis.call('HGET', KEYS[1], ARGV[index]))
  if not stored or math.abs(tonumber(ARGV[index + 1])) > math.abs(stored) then
    redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
    changed = changed + 1
  end
end
return changed
