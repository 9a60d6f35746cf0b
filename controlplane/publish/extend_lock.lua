#!lua
-- Sets how long a lock is still held, if it is ours. KEYS: lock. ARGV: token, milliseconds. Answers 1 when it was.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
