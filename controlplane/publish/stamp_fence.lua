#!lua
-- Declares a shard rebuilt. KEYS: fence, rebuild token. ARGV: token, incarnation.
-- Answers the fence, or nothing when the token is lost or the fence is valid already.
local fence = redis.call('GET', KEYS[1])
if redis.call('GET', KEYS[2]) ~= ARGV[1] or (fence and string.sub(fence, 1, #ARGV[2]) == ARGV[2]) then
  return false
end
local time = redis.call('TIME')
-- Milliseconds, so that epochs grow also when nothing is left of the last one.
local epoch = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = fence and tonumber(string.match(fence, ':(%d+)$')) or 0
local stamped = ARGV[2] .. string.format('%.0f', math.max(epoch, last + 1))
redis.call('SET', KEYS[1], stamped)
redis.call('DEL', KEYS[2])
return stamped
