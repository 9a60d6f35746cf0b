#!lua
-- Writes counters as a rebuild has found them, in place of whatever was there; the windows stay. Keeps the token alive
-- meanwhile. `counters` is included in front of this.
-- KEYS: rebuild token, fence, then counters of scopes. ARGV: token, incarnation, time to live of the token in ms, then for
-- each scope its counters as they stand before the head of the windows, '' where there are none.
-- Answers of how many scopes, -1 when the token is lost or somebody else has stamped the fence.
local HEAD_AT, WINDOW_MS = 113, 121000
local NO_COUNTERS = string.rep('\0', COUNTERS_SIZE)

-- The head of the windows as it stands in the string of a scope, that of none where there is no such string.
local function head_of(raw)
  return string.sub(raw and #raw == COUNTERS_SIZE and raw or NO_COUNTERS, HEAD_AT)
end

local fence = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] or (fence and string.sub(fence, 1, #ARGV[2]) == ARGV[2]) then
  return -1
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local now_ms = redis.call('TIME')[1] * 1000
for index = 3, #KEYS do
  local counted = ARGV[index + 1]
  local head = head_of(redis.call('GET', KEYS[index]))
  -- Head first: the moment of the latest admission.
  if counted == '' and struct.unpack('<d', head) < now_ms - WINDOW_MS then
    redis.call('DEL', KEYS[index])
  else
    redis.call('SET', KEYS[index], (counted == '' and string.sub(NO_COUNTERS, 1, HEAD_AT - 1) or counted) .. head)
  end
end
return #KEYS - 2
