-- Included by scripts that count the requests and tokens of the last 60 s; never run alone.
--
-- One string per scope, numbers as big-endian doubles. Only pieces of it are read and written, and the buckets only when
-- a second has passed:
--   0     last_ms    latest admission, by the clock of the windows
--   8     head       admissions ever
--   16    requests   sum of the last 61 seconds, the current one included
--   24    tokens     likewise
--   32    second     the current one
--   40    requests   of the current second
--   48    tokens     of the current second
--   56    moments of the last 128 admissions, in ms: that of admission n at n % 128
--   1080  requests and tokens per second, 61 buckets: second s at s % 61, the current one's not yet written; the oldest
--         counts whole
--
-- The clock of the windows never goes back: a server whose clock does must not admit a second time.

local RING, SECONDS, WINDOW_MS = 128, 61, 60000
local SUMS_AT, MOMENTS_AT, BUCKETS_AT = 24, 56, 1080
local HEADER, BUCKET = '>ddddddd', '>dd'
local NO_BUCKETS = string.rep('\0', 16 * SECONDS)
local WINDOW_TTL_S = 121

local function read_window(key)
  local header = redis.call('GETRANGE', key, 0, MOMENTS_AT - 1)
  if header == '' then
    return { key = key, last_ms = 0, head = 0, requests = 0, tokens = 0, second = 0, requests_now = 0, tokens_now = 0 }
  end
  local last_ms, head, requests, tokens, second, requests_now, tokens_now = struct.unpack(HEADER, header)
  return {
    key = key, last_ms = last_ms, head = head, requests = requests, tokens = tokens, second = second,
    requests_now = requests_now, tokens_now = tokens_now,
  }
end

local function buckets_of(window)
  return window.buckets or redis.call('GETRANGE', window.key, BUCKETS_AT, -1)
end

local function bucket(buckets, second)
  return struct.unpack(BUCKET, buckets, 16 * (second % SECONDS) + 1)
end

local function with_bucket(buckets, second, requests, tokens)
  local at = 16 * (second % SECONDS)
  return string.sub(buckets, 1, at) .. struct.pack(BUCKET, requests, tokens) .. string.sub(buckets, at + 17)
end

-- Forgets the seconds that are too old at `now_ms`, which is not before `last_ms`.
local function advance_window(window, now_ms)
  local second = math.floor(now_ms / 1000)
  if second == window.second then
    return
  end
  if second - window.second >= SECONDS then
    window.buckets, window.requests, window.tokens = NO_BUCKETS, 0, 0
  else
    local buckets = with_bucket(buckets_of(window), window.second, window.requests_now, window.tokens_now)
    for passed = window.second + 1, second do
      local requests, tokens = bucket(buckets, passed)
      if requests ~= 0 or tokens ~= 0 then
        window.requests, window.tokens = window.requests - requests, window.tokens - tokens
        buckets = with_bucket(buckets, passed, 0, 0)
      end
    end
    window.buckets = buckets
  end
  window.second, window.requests_now, window.tokens_now = second, 0, 0
end

-- How long until what is in the window, `sum` of requests (1) or of tokens (2), is at most `target`.
local function wait_for_seconds_ms(window, which, sum, target, now_ms)
  local buckets = buckets_of(window)
  for second = window.second - SECONDS + 1, window.second - 1 do
    sum = sum - select(which, bucket(buckets, second))
    if sum <= target then
      return (second + SECONDS) * 1000 - now_ms
    end
  end
  -- The current second is the last that goes.
  return sum - (which == 1 and window.requests_now or window.tokens_now) <= target
    and (window.second + SECONDS) * 1000 - now_ms or WINDOW_MS
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
    if window.head < limit then
      return 0
    end
    local at = MOMENTS_AT + 8 * ((window.head - limit) % RING)
    local moment = struct.unpack('>d', redis.call('GETRANGE', window.key, at, at + 7))
    return math.max(0, moment + WINDOW_MS - now_ms)
  end
  if window.requests + 1 <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 1, window.requests, limit - 1, now_ms)
end

-- Milliseconds until so many more tokens are within `limit`, 0 when they are now.
local function wait_for_tokens_ms(window, limit, tokens, now_ms)
  if limit < 0 or window.tokens + tokens <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 2, window.tokens, limit - tokens, now_ms)
end

-- Counts one request with its tokens and writes the window.
local function count_in_window(window, tokens, now_ms)
  local key, moment_at = window.key, MOMENTS_AT + 8 * (window.head % RING)
  window.last_ms, window.head = now_ms, window.head + 1
  window.requests, window.tokens = window.requests + 1, window.tokens + tokens
  redis.call('SETRANGE', key, 0, struct.pack(HEADER, now_ms, window.head, window.requests, window.tokens,
    window.second, window.requests_now + 1, window.tokens_now + tokens))
  redis.call('SETRANGE', key, moment_at, struct.pack('>d', now_ms))
  if window.buckets then
    redis.call('SETRANGE', key, BUCKETS_AT, window.buckets)
    redis.call('EXPIRE', key, WINDOW_TTL_S)
  end
end

-- Corrects the tokens of a request that was counted at `counted_ms`, unless that second has left the window.
local function correct_in_window(key, counted_ms, difference)
  if difference == 0 then
    return
  end
  local header = redis.call('GETRANGE', key, SUMS_AT, MOMENTS_AT - 1)
  if header == '' then
    return
  end
  local tokens, current, requests_now, tokens_now = struct.unpack('>dddd', header)
  local second = math.floor(counted_ms / 1000)
  if second <= current - SECONDS then
    return
  end
  if second == current then
    tokens_now = tokens_now + difference
  else
    local at = BUCKETS_AT + 16 * (second % SECONDS) + 8
    local counted = struct.unpack('>d', redis.call('GETRANGE', key, at, at + 7))
    redis.call('SETRANGE', key, at, struct.pack('>d', counted + difference))
  end
  redis.call('SETRANGE', key, SUMS_AT, struct.pack('>dddd', tokens + difference, current, requests_now, tokens_now))
end
