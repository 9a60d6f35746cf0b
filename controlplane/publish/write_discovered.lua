#!lua
-- Replaces the discovered models by a newer revision, with a time to live; an older one changes nothing.
-- KEYS: record. ARGV: the record, whose JSON starts with its revision; the revision; TTL in milliseconds.
-- Answers 1 when the record was written.
local stored = redis.call('GET', KEYS[1])
local known = stored and tonumber(string.match(stored, '^{"revision":(%d+)')) or 0
if known >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
