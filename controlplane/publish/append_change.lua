#!lua flags=allow-oom
-- Appends a change if its revision is above that of every change before it.
-- KEYS: changes. ARGV: revision, most entries (about), kind, id, version.
-- Answers -1 when it was appended, otherwise the revision that the next one must be above.
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = newest[1] and string.match(newest[1][1], '^(%d+)') or '0'
if tonumber(last) >= tonumber(ARGV[1]) then
  return tonumber(last)
end
-- Each entry names the one before it, so that a reader notices when one is missing.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[1] .. '-0',
  'k', ARGV[3], 'i', ARGV[4], 'v', ARGV[5], 'p', last)
return -1
