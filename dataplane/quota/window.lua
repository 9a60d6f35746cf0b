-- Included by scripts that count the requests and tokens of the last 60 s; never run alone.
--
-- What changes with every request is the head, numbers among the counters of the scope (`counters.lua`):
--   15  latest admission in ms, by the clock of the windows   16  admissions ever
--   17  requests   18  tokens: sums of the last 61 seconds, the current one included
--   19  the current second   20  requests   21  tokens of the current second
-- The rest is a string per scope, doubles as well, of which only pieces are read and written:
--   0     moments of the last 128 admissions, in ms: that of admission n at n % 128
--   1024  requests and tokens per second, 61 buckets: second s at s % 61, the current one's not yet written; the oldest
--         counts whole. They are read and written only when a second has passed.
-- It expires once nothing in it counts any more; the head alone then says nothing was admitted in the last minute.
--
-- The clock of the windows never goes back: a server whose clock does must not admit a second time.

local LAST_MS, ADMISSIONS, REQUESTS, TOKENS, SECOND, REQUESTS_NOW, TOKENS_NOW = 15, 16, 17, 18, 19, 20, 21
-- While a script runs, behind the numbers: the name of the rest, and its buckets once they were changed.
local WINDOW_KEY, BUCKETS = 22, 23
local RING, SECONDS, WINDOW_MS = 128, 61, 60000
local BUCKETS_AT, BUCKETS_SIZE = 1024, 976
local BUCKET = '>dd'
-- Set once a minute: then it has 121 s left after the last admission.
local WINDOW_TTL_S = 181

local function no_buckets()
  return string.rep('\0', BUCKETS_SIZE)
end

-- And whether they were there: a clock that has gone ahead and back lets them expire before their head is old.
local function buckets_of(window)
  local buckets = window[BUCKETS] or redis.call('GETRANGE', window[WINDOW_KEY], BUCKETS_AT, -1)
  if #buckets == BUCKETS_SIZE then
    return buckets, true
  end
  return no_buckets(), false
end

local function bucket(buckets, second)
  return struct.unpack(BUCKET, buckets, 16 * (second % SECONDS) + 1)
end

local function with_bucket(buckets, second, requests, tokens)
  local at = 16 * (second % SECONDS)
  return string.sub(buckets, 1, at) .. struct.pack(BUCKET, requests, tokens) .. string.sub(buckets, at + 17)
end

-- Forgets the seconds that are too old at `now_ms`, which is not before the latest admission.
local function advance_window(window, now_ms)
  local second, current = math.floor(now_ms / 1000), window[SECOND]
  if second == current then
    return
  end
  if second - current >= SECONDS then
    window[BUCKETS], window[REQUESTS], window[TOKENS] = no_buckets(), 0, 0
  else
    local buckets, were_there = buckets_of(window)
    if not were_there then
      window[REQUESTS], window[TOKENS] = window[REQUESTS_NOW], window[TOKENS_NOW]
    end
    buckets = with_bucket(buckets, current, window[REQUESTS_NOW], window[TOKENS_NOW])
    for passed = current + 1, second do
      local requests, tokens = bucket(buckets, passed)
      if requests ~= 0 or tokens ~= 0 then
        window[REQUESTS], window[TOKENS] = window[REQUESTS] - requests, window[TOKENS] - tokens
        buckets = with_bucket(buckets, passed, 0, 0)
      end
    end
    window[BUCKETS] = buckets
  end
  window[SECOND], window[REQUESTS_NOW], window[TOKENS_NOW] = second, 0, 0
end

-- How long until what is in the window, `sum` of requests (1) or of tokens (2), is at most `target`.
local function wait_for_seconds_ms(window, which, sum, target, now_ms)
  local buckets, current = buckets_of(window), window[SECOND]
  for second = current - SECONDS + 1, current - 1 do
    sum = sum - select(which, bucket(buckets, second))
    if sum <= target then
      return (second + SECONDS) * 1000 - now_ms
    end
  end
  -- The current second is the last that goes.
  return sum - window[which == 1 and REQUESTS_NOW or TOKENS_NOW] <= target
    and (current + SECONDS) * 1000 - now_ms or WINDOW_MS
end

-- Milliseconds until one more request is within `limit`, 0 when it is now. Negative limits are none.
local function wait_for_request_ms(window, limit, now_ms)
  if limit < 0 then
    return 0
  end
  if limit == 0 then
    return WINDOW_MS
  end
  if limit <= RING then
    if window[ADMISSIONS] < limit then
      return 0
    end
    local at = 8 * ((window[ADMISSIONS] - limit) % RING)
    local moment = redis.call('GETRANGE', window[WINDOW_KEY], at, at + 7)
    return moment == '' and 0 or math.max(0, struct.unpack('>d', moment) + WINDOW_MS - now_ms)
  end
  if window[REQUESTS] + 1 <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 1, window[REQUESTS], limit - 1, now_ms)
end

-- Milliseconds until so many more tokens are within `limit`, 0 when they are now.
local function wait_for_tokens_ms(window, limit, tokens, now_ms)
  if limit < 0 or window[TOKENS] + tokens <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 2, window[TOKENS], limit - tokens, now_ms)
end

-- Counts one request with its tokens. Writes all but the head.
local function count_in_window(window, tokens, now_ms)
  local key = window[WINDOW_KEY]
  redis.call('SETRANGE', key, 8 * (window[ADMISSIONS] % RING), struct.pack('>d', now_ms))
  if window[BUCKETS] then
    redis.call('SETRANGE', key, BUCKETS_AT, window[BUCKETS])
    if math.floor(window[LAST_MS] / 60000) ~= math.floor(now_ms / 60000) then
      redis.call('EXPIRE', key, WINDOW_TTL_S)
    end
  end
  window[LAST_MS], window[ADMISSIONS] = now_ms, window[ADMISSIONS] + 1
  window[REQUESTS], window[TOKENS] = window[REQUESTS] + 1, window[TOKENS] + tokens
  window[REQUESTS_NOW], window[TOKENS_NOW] = window[REQUESTS_NOW] + 1, window[TOKENS_NOW] + tokens
end

-- Corrects the tokens of a request that was counted at `counted_ms`, unless that second has left the window. Writes all
-- but the head.
local function correct_in_window(window, key, counted_ms, difference)
  local second, current = math.floor(counted_ms / 1000), window[SECOND]
  if difference == 0 or second > current or second <= current - SECONDS then
    return
  end
  if second == current then
    window[TOKENS_NOW] = window[TOKENS_NOW] + difference
  else
    local at = BUCKETS_AT + 16 * (second % SECONDS) + 8
    local counted = redis.call('GETRANGE', key, at, at + 7)
    if counted == '' then
      return
    end
    redis.call('SETRANGE', key, at, struct.pack('>d', struct.unpack('>d', counted) + difference))
  end
  window[TOKENS] = window[TOKENS] + difference
end
