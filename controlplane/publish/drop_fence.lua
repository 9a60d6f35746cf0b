#!lua
-- Takes a fence away, so that the shard is rebuilt, if it is still the one that was seen. KEYS: fence. ARGV: the fence.
-- Answers 1 when it was.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
