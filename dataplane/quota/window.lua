-- Included by scripts that count the requests and tokens of the last 60 s; never run alone.
--
-- One string per scope, numbers as big-endian doubles, so that a request costs one read and one write:
--   0    last_ms    latest admission, by the clock of the windows
--   8    head       admissions ever
--   16   requests   sum of the request buckets
--   24   tokens     sum of the token buckets
--   32   second     up to which the buckets are valid: those of `second` − 60 … `second`
--   40   moments of the last 128 admissions, in ms: that of admission n at n % 128
--   1064 requests per second, 61 buckets: second s at s % 61; the oldest counts whole
--   1552 tokens per second, likewise
--
-- The clock of the windows never goes back: a server whose clock does must not admit a second time.

local RING, SECONDS, WINDOW_MS = 128, 61, 60000
local MOMENTS_AT, REQUESTS_AT, TOKENS_AT, SIZE = 40, 1064, 1552, 2040
local WINDOW_TTL_S = 121

local function number_at(raw, offset)
  return (struct.unpack('>d', raw, offset + 1))
end

local function with_bytes(raw, offset, bytes)
  return string.sub(raw, 1, offset) .. bytes .. string.sub(raw, offset + #bytes + 1)
end

local function read_window(key)
  local raw = redis.call('GET', key)
  if not raw then
    return { key = key, last_ms = 0, head = 0, requests = 0, tokens = 0, second = 0 }
  end
  local last_ms, head, requests, tokens, second = struct.unpack('>ddddd', raw)
  return { key = key, raw = raw, last_ms = last_ms, head = head, requests = requests, tokens = tokens, second = second }
end

-- Forgets the buckets that are too old at `now_ms`, which is not before `last_ms`.
local function advance_window(window, now_ms)
  local second = math.floor(now_ms / 1000)
  local passed = second - window.second
  if not window.raw or passed >= SECONDS then
    local moments = window.raw and string.sub(window.raw, 1, REQUESTS_AT) or string.rep('\0', REQUESTS_AT)
    window.raw = moments .. string.rep('\0', SIZE - REQUESTS_AT)
    window.requests, window.tokens = 0, 0
  else
    for past = window.second + 1, second do
      local bucket = 8 * (past % SECONDS)
      local requests = number_at(window.raw, REQUESTS_AT + bucket)
      local tokens = number_at(window.raw, TOKENS_AT + bucket)
      if requests ~= 0 or tokens ~= 0 then
        window.requests, window.tokens = window.requests - requests, window.tokens - tokens
        window.raw = with_bytes(window.raw, REQUESTS_AT + bucket, string.rep('\0', 8))
        window.raw = with_bytes(window.raw, TOKENS_AT + bucket, string.rep('\0', 8))
      end
    end
  end
  window.second = second
end

-- How long until the buckets from `offset` on, which sum up to `sum`, sum up to at most `target`.
local function wait_for_buckets_ms(window, offset, sum, target, now_ms)
  for second = window.second - SECONDS + 1, window.second do
    sum = sum - number_at(window.raw, offset + 8 * (second % SECONDS))
    if sum <= target then
      return (second + SECONDS) * 1000 - now_ms
    end
  end
  return WINDOW_MS
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
    local moment = number_at(window.raw, MOMENTS_AT + 8 * ((window.head - limit) % RING))
    return math.max(0, moment + WINDOW_MS - now_ms)
  end
  if window.requests + 1 <= limit then
    return 0
  end
  return wait_for_buckets_ms(window, REQUESTS_AT, window.requests, limit - 1, now_ms)
end

-- Milliseconds until so many more tokens are within `limit`, 0 when they are now.
local function wait_for_tokens_ms(window, limit, tokens, now_ms)
  if limit < 0 or window.tokens + tokens <= limit then
    return 0
  end
  return wait_for_buckets_ms(window, TOKENS_AT, window.tokens, limit - tokens, now_ms)
end

-- Counts one request with its tokens and writes the window.
local function count_in_window(window, tokens, now_ms)
  local raw, bucket = window.raw, 8 * (window.second % SECONDS)
  local moment_at = MOMENTS_AT + 8 * (window.head % RING)
  local requests_at, tokens_at = REQUESTS_AT + bucket, TOKENS_AT + bucket
  window.last_ms, window.head = now_ms, window.head + 1
  window.requests, window.tokens = window.requests + 1, window.tokens + tokens
  redis.call('SET', window.key, table.concat({
    struct.pack('>ddddd', now_ms, window.head, window.requests, window.tokens, window.second),
    string.sub(raw, MOMENTS_AT + 1, moment_at),
    struct.pack('>d', now_ms),
    string.sub(raw, moment_at + 9, requests_at),
    struct.pack('>d', number_at(raw, requests_at) + 1),
    string.sub(raw, requests_at + 9, tokens_at),
    struct.pack('>d', number_at(raw, tokens_at) + tokens),
    string.sub(raw, tokens_at + 9),
  }), 'EX', WINDOW_TTL_S)
end

-- Corrects the tokens of a request that was counted at `counted_ms`, unless that second has left the window.
local function correct_in_window(key, counted_ms, difference)
  if difference == 0 then
    return
  end
  local raw = redis.call('GET', key)
  local second = math.floor(counted_ms / 1000)
  if not raw or second <= number_at(raw, 32) - SECONDS then
    return
  end
  local tokens_at = TOKENS_AT + 8 * (second % SECONDS)
  redis.call('SET', key, table.concat({
    string.sub(raw, 1, 24),
    struct.pack('>d', number_at(raw, 24) + difference),
    string.sub(raw, 33, tokens_at),
    struct.pack('>d', number_at(raw, tokens_at) + difference),
    string.sub(raw, tokens_at + 9),
  }), 'KEEPTTL')
end
