#!lua flags=allow-oom
-- Stores what is known of workers, stamped with the time of this server, and drops those not heard of for long.
-- KEYS: replicas. ARGV: after how many ms to drop, then worker id and record (a JSON object without the stamp) in turn.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stamp = string.format(',"seen_at_ms":%.0f}', now_ms)
for index = 2, #ARGV, 2 do
  -- Spliced into the text: encoding again would round large numbers and lose what is empty.
  redis.call('HSET', KEYS[1], ARGV[index], string.sub(ARGV[index + 1], 1, -2) .. stamp)
end
local entries = redis.call('HGETALL', KEYS[1])
for index = 1, #entries, 2 do
  local seen_at_ms = tonumber(string.match(entries[index + 1], '"seen_at_ms":(%d+)}$')) or 0
  if seen_at_ms < now_ms - tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], entries[index])
  end
end
return now_ms
